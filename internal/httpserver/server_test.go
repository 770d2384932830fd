package httpserver

import (
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What cannot be listened on, or configured, is said in one line.
func TestServer_Errors(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	bad := filepath.Join(t.TempDir(), "web.yml")
	if err := os.WriteFile(bad, []byte("basic_auth_users:\n  a: notahash\nnonsense: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	fifo, namesFIFO := filepath.Join(t.TempDir(), "fifo"), filepath.Join(t.TempDir(), "web.yml")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(namesFIFO, []byte("tls_server_config:\n  cert_file: "+fifo+"\n  key_file: "+fifo+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ address, config, want string }{
		"a FIFO":          {"127.0.0.1:0", fifo, "web configuration " + fifo + ": open " + fifo + ": the file is of another kind"},
		"names a FIFO":    {"127.0.0.1:0", namesFIFO, "web configuration " + namesFIFO + ": a file that it names cannot be read within 5s: use regular files"},
		"in use":          {taken.Addr().String(), "", taken.Addr().String() + " is in use by another process: choose another port"},
		"another's":       {"192.0.2.1:9464", "", "192.0.2.1:9464 is no address of this host"},
		"not there":       {"127.0.0.1:0", "/nonexistent/web.yml", "web configuration /nonexistent/web.yml: "},
		"no such keyword": {"127.0.0.1:0", bad, "web configuration " + bad + ": "},
	} {
		s, err := Listen(tt.address, tt.config, nil)
		if err == nil {
			_ = s.Close()
		}
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
	}
}

// The cookies of the server's sockets are noted: of the listener, and of each connection.
func TestServer_OwnSockets(t *testing.T) {
	cookies := make(chan uint64, 10)
	s, err := Listen("127.0.0.1:0", "", func(cookie uint64) { cookies <- cookie })
	if err != nil {
		t.Fatal(err)
	}
	s.Serve(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }), func(err error) { t.Error(err) })
	t.Cleanup(func() { _ = s.Close() })
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	seen := make(map[uint64]bool)
	seen[<-cookies] = true
	for range 2 {
		response, err := client.Get("http://" + s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close() // the answer is of no interest
		seen[<-cookies] = true
	}
	if len(seen) != 3 || seen[0] {
		t.Errorf("the cookies are %v, want three", seen)
	}
}
