package main

import (
	"slices"
	"testing"
)

// The mirrors are those of the machine, Debian's first.
func TestApt_MirrorOfThisMachine(t *testing.T) {
	for _, tt := range []struct {
		name, uris string
		want       []string
	}{
		{"Debian's is the one with updates", `'http://other.example/apt/dists/bookworm/InRelease' other 0
'http://mirror.example/debian/dists/bookworm/InRelease' a 0
'http://mirror.example/debian/dists/bookworm-updates/InRelease' b 0
'http://mirror.example/debian-security/dists/bookworm-security/InRelease' c 0
`, []string{"http://mirror.example/debian", "http://other.example/apt", "http://mirror.example/debian-security"}},
		{"a list of mirrors is one", `'mirror+file:/etc/apt/mirrors/debian.list/dists/trixie/InRelease' x 0
`, []string{"mirror+file:/etc/apt/mirrors/debian.list"}},
		{"a flat archive is none", "'http://flat.example/debs/InRelease' x 0\n", nil},
		{"no sources", "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := parseMirrors(tt.uris); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
