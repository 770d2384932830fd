package spelling

import "testing"

// Nearest finds the name that was meant, and none where nothing is like it.
func TestNearest_Misspelt(t *testing.T) {
	names := []string{"port", "peer-port", "not-port", "alert-interval", "stats-interval"}
	for misspelt, want := range map[string]string{
		"prot": "port", "peerport": "peer-port", "PEER_PORT": "peer-port", "not-prt": "not-port",
		"statsinterval": "stats-interval", "interval": "", "x": "", "": "",
	} {
		if got := Nearest(misspelt, names); got != want {
			t.Errorf("%q: got %q, want %q", misspelt, got, want)
		}
	}
}
