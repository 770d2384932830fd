package output

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/tcpshift/tcpshift/internal/safeopen"
)

// A spool is left if it has lines, is no output's of this run, and no other process uses it.
func TestSpool_Left(t *testing.T) {
	dir := t.TempDir()
	root, err := safeopen.PrivateRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	open := func(name, lines string) *spool {
		s, err := (&Spool{Root: root, Name: name, Size: MinSpoolSize}).open(t.Context(), func(string) {})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.add([]byte(lines)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.close() })
		return s
	}
	for _, name := range []string{"old", "older", "configured"} {
		if err := open(name, "a\nb\n").close(); err != nil {
			t.Fatal(err)
		}
	}
	open("in-use", "a\n")
	sent := open("sent", "a\n")
	drainSpool(t, sent, 0)
	if err := sent.close(); err != nil {
		t.Fatal(err)
	}
	if err := open("empty", "").close(); err != nil {
		t.Fatal(err)
	}
	partly := open("partly", "a\nb\n")
	if _, err := partly.lines(); err != nil {
		t.Fatal(err)
	}
	partly.sent(2)
	if err := partly.keep(0); err != nil {
		t.Fatal(err)
	}
	if err := partly.close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "another"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, want := LeftSpools(root, []string{"configured"}), []string{"old", "older", "partly"}; !slices.Equal(got, want) {
		t.Errorf("%q are left, want %q", got, want)
	}
}
