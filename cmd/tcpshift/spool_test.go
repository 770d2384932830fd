package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// A start names the directories of outputs that are not configured any more, with the remedy.
func TestSpool_LeftMessage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "spool")
	for _, name := range []string{"old", "tcp-192.0.2.1_6514", "named"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		for file, content := range map[string]string{"position": "", "0000000000000001.lines": "{}\n"} {
			if err := os.WriteFile(filepath.Join(dir, name, file), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	o := completed(t, nil, "--spool", dir, "--output", "tcp://192.0.2.1:6514", "--output", "tcp://192.0.2.2:6514?name=named",
		"--output", "/dev/null?name=old").options // a file has no spool
	closeRoot, err := o.spool.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer closeRoot()
	want := []string{"--spool: " + dir + "/old has lines, and no output sends them: " +
		"configure its output again, or another one with name=old, or remove the directory"}
	if got := o.spool.left(t.Context(), o.outputs); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
