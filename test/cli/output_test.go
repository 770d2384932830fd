package cli_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// An output that cannot be opened ends the run with one line and status 1.
func TestOutput_CannotBeOpened(t *testing.T) {
	dir := t.TempDir()
	for path, cause := range map[string]string{
		dir:                           "is a directory",
		filepath.Join(dir, "no", "f"): "no such file or directory",
		"/proc/version/f":             "not a directory",
	} {
		r := run([]string{"--output", path})
		r.mustEnd(t, 1)
		r.mustPrintNothing(t)
		r.mustPrintError(t, "--output: open "+path+": "+cause)
	}
}

// A full device ends the run with one line that names the device and the error. A trace
// fails at its second record, a second after its start.
func TestOutput_FullDevice(t *testing.T) {
	requireRoot(t)
	t.Parallel()
	soon := []string{"--stats-interval", "1s"}
	for _, command := range [][]string{soon, {"snapshot"}} {
		args := append(slices.Clone(command), "--output", "/dev/full")
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			t.Parallel()
			r := run(args)
			r.mustEnd(t, 1)
			r.mustPrintNothing(t)
			r.mustPrintError(t, "write /dev/full: no space left on device")
		})
	}

	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { full.Close() })
	for _, args := range [][]string{soon, {"snapshot"}, {"snapshot", "--format", "text"}, {"doctor"}, {"version"}, {"explain"}, {"explain", "CLOSE"}, {"completion", "bash"}} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			t.Parallel()
			r := run(args, withStdout(full))
			r.mustEnd(t, 1)
			r.mustPrintError(t, "write /dev/stdout: no space left on device")
		})
	}
}

// On a full disk the file ends with a whole line.
func TestOutput_FullDiskWholeLines(t *testing.T) {
	requireRoot(t)
	const file = "/mnt/records"
	var r result
	var content []byte
	err := onThread(func() error {
		if err := privateMount("/mnt", "size=4k"); err != nil { // the kernel rounds up to one page
			return err
		}
		r = run([]string{"--only", "stats", "--stats-interval", "1ms", "--output", file, "--duration", "2s"})
		var err error
		content, err = os.ReadFile(file)
		return err
	})
	if err != nil {
		t.Fatalf("%v\n%v", err, r)
	}
	r.mustEnd(t, 1)
	r.mustPrintNothing(t)
	const full = "write " + file + ": no space left on device"
	r.mustPrintError(t, full+": writing continues as soon as there is space\ntcpshift: "+full)
	r.stdout = string(content) // for failure messages
	lines := strings.SplitAfter(r.stdout, "\n")
	if last := lines[len(lines)-1]; last != "" || len(lines) < 3 {
		t.Fatalf("want a file of several lines that ends with a whole line\n%v", r)
	}
	for i, line := range lines[:len(lines)-1] {
		parseRecord(t, r, i, line)
	}
}

// --output appends to a file and prints nothing. It creates the file with mode 0600, so
// that other users cannot read it.
func TestOutput_AppendsToFile(t *testing.T) {
	requireRoot(t)
	file := filepath.Join(t.TempDir(), "records")
	var ends []int
	for range 2 {
		r := run(append(quiet, "--duration", "1ms", "--output", file))
		r.mustEnd(t, 0)
		r.mustPrintNothing(t)
		r.mustPrintError(t, "")
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		r.stdout = string(content)
		if len(ends) > 0 {
			r.stdout = r.stdout[ends[0]:]
		}
		parseStream(t, r)
		ends = append(ends, len(content))
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("%s has mode %v, want 0600", file, info.Mode())
	}
}
