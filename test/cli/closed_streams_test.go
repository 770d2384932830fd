package cli_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// With standard streams closed, nothing is written to a descriptor of another file.
func TestOutput_ClosedStandardStreams(t *testing.T) {
	requireRoot(t)
	t.Parallel()
	sh := lookPath(t, "sh")
	// A shell can close descriptors; exec.Cmd cannot.
	without := func(redirection string) func(*exec.Cmd) {
		return func(cmd *exec.Cmd) {
			cmd.Args = append([]string{"sh", "-c", `exec "$0" "$@" ` + redirection, program}, cmd.Args[1:]...)
			cmd.Path = sh
		}
	}
	t.Run("no standard output, records in a file", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "records")
		r := run(append(quiet, "--duration", "1ms", "--output", file), without(">&- 2>&- <&-"))
		r.mustEnd(t, 0)
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		r.stdout = string(content)
		parseStream(t, r)
	})
	t.Run("no standard output", func(t *testing.T) {
		r := run(append(quiet, "--duration", "1ms"), without(">&-"))
		r.mustEnd(t, 0)
		r.mustPrintNothing(t)
		r.mustPrintError(t, "")
	})
	t.Run("no standard error", func(t *testing.T) {
		r := run(append(quiet, "--duration", "1ms"), without("2>&-"))
		r.mustEnd(t, 0)
		parseStream(t, r)
	})
	t.Run("no standard error, and a mistake", func(t *testing.T) {
		r := run([]string{"--port", "0"}, without("2>&-"))
		r.mustEnd(t, 2)
		r.mustPrintNothing(t)
	})
	t.Run("no standard error, and a failure", func(t *testing.T) {
		r := run([]string{"--stats-interval", "1s", "--output", "/dev/full"}, without("2>&-"))
		r.mustEnd(t, 1)
		r.mustPrintNothing(t)
	})
	t.Run("no standard output, ended by a signal", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "started")
		if err := unix.Mkfifo(file, 0o600); err != nil {
			t.Fatal(err)
		}
		started, err := os.OpenFile(file, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer started.Close()
		tr := launch(t, append(quiet, "--output", file), without(">&-"))
		tr.out = started
		tr.lines.Reset(started)
		tr.next()
		tr.signal(syscall.SIGTERM)
		r := tr.waitUnread()
		r.mustEnd(t, 0)
		r.mustPrintError(t, "")
	})
}
