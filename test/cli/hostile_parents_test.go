package cli_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A directory above the output, or above the spool, that another user can replace has one line at the start, which
// names the flag, the directory and the remedy.
func TestHostile_ReplaceableDirectory(t *testing.T) {
	requireRoot(t)
	above := filepath.Join(t.TempDir(), "above")
	in := filepath.Join(above, "in")
	if err := os.MkdirAll(in, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(in, "records")
	output := slices.Concat(quiet, []string{"--duration", "1ms", "--output", path})
	r := run(output)
	r.mustEnd(t, 0)
	r.mustPrintError(t, "")
	if err := os.Chown(above, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	r = run(output)
	r.mustEnd(t, 0)
	r.mustPrintError(t, "--output: "+in+" can be replaced by uid 65534, who owns "+above+
		", so that SIGHUP opens another file: use a directory below those that only root can change")
	spool := filepath.Join(in, "spool")
	r = run(slices.Concat(quiet, []string{"--duration", "1ms", "--spool", spool, "--output", "unix:///nonexistent"}))
	if want := "--spool: " + in + " can be replaced by uid 65534"; !strings.Contains(r.stderr, want) {
		t.Errorf("with --spool %s it prints %q, want %q", spool, r.stderr, want)
	}
	for _, args := range [][]string{append(output, "--output-follow"), {"snapshot", "--output", path}} {
		if r := run(args); strings.Contains(r.stderr, "replaced") {
			t.Errorf("%s warns of %q", r.command, r.stderr)
		}
	}
}
