package cli_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fileStream is the stream in a file that a tracer wrote.
func fileStream(t testing.TB, path string, r result) stream {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v\n%v", err, r)
	}
	r.stdout = string(content)
	return parseStream(t, r)
}

// Each output has its own format and choice of types, and an account that adds up.
func TestOutputs_OwnFormatAndTypes(t *testing.T) {
	s := newTraffic(t)
	dir := t.TempDir()
	text, ends, labeled := filepath.Join(dir, "text"), filepath.Join(dir, "ends"), filepath.Join(dir, "l?beled")
	tr := startTracer(t, append(s.byNetns(), "--label", "site=a", "--only", "transition,connection",
		"--output", "-", "--output", text+"?format=text&only=transition", "--output", ends+"?only=connection&name=ends&mode=0640",
		"--output", "file://"+strings.ReplaceAll(labeled, "?", "%3F")+"?queue=1MiB"))
	s.makeConnections()
	all := tr.stop()
	r := all.result
	other := fileStream(t, labeled, r)
	made := s.transitions(all)
	if len(made) < 60 {
		t.Fatalf("%d transitions of the traffic, want all\n%v", len(made), r)
	}
	for i, rec := range all.of("transition") {
		if same := other.of("transition"); i >= len(same) || same[i].line != rec.line || !strings.Contains(rec.line, `"site":"a"`) {
			t.Fatalf("transition %d differs between two outputs: %s", i, rec.line)
		}
	}
	only := fileStream(t, ends, r)
	if n := len(only.of("connection")); n != len(all.of("connection")) || n+2 != len(only.records) {
		t.Errorf("%d connections among %d records, want %d and start and stop", n, len(only.records), len(all.of("connection")))
	}
	if stop := only.last(); stop.Written != 0 || stop.Dropped != stop.Read || stop.Read != all.last().Read {
		t.Errorf("an output of connections ends with %s, want all transitions dropped", stop.line)
	}
	lines, err := os.ReadFile(text)
	if err != nil {
		t.Fatal(err)
	}
	if rows := strings.Count(string(lines), "ESTABLISHED"); strings.Contains(string(lines), "{") || rows < 12 {
		t.Errorf("the text has %d rows with ESTABLISHED:\n%s", rows, lines)
	}
	if info, err := os.Stat(ends); err != nil || info.Mode().Perm()&^0o640 != 0 {
		t.Errorf("the file has the mode %v, %v; want 0640 less the umask", info.Mode(), err)
	}
}

// An output whose reader stalls costs the others nothing. It counts what it loses, and at the end
// it is abandoned alone.
func TestOutputs_StalledBesideHealthy(t *testing.T) {
	n, args := stormNamespace(t, "--stats-interval", "100ms")
	healthy := filepath.Join(t.TempDir(), "healthy")
	tr := startTracer(t, append(args, "--output", "-", "--output", healthy+"?queue=64MiB"))
	runStorm(t, n) // 12 MiB, which nobody reads from standard output
	connectPlain(t, n.Netns)
	tr.signal(syscall.SIGTERM)
	r := tr.waitUnread()
	r.mustEnd(t, 1)
	if !strings.HasPrefix(r.stderr, "tcpshift: -: ") || !strings.HasSuffix(r.stderr, "bytes of output were not written: the reader or the disk did not take them in time\n") ||
		strings.Count(r.stderr, "\n") != 1 {
		t.Errorf("want one line that names the output that stalled\n%v", r)
	}
	s := fileStream(t, healthy, r)
	s.checkLosses(t, n, stormTransitions+plainTransitions)
	if stop := s.last(); stop.LostQueue != 0 || stop.Reason != "signal" {
		t.Errorf("the healthy output ends with %s, want nothing lost to a queue", stop.line)
	}
	s.mustBeWhole(t, 0)
}

// A stalled output that is read at last has its own account of what it lost.
func TestOutputs_StalledIsReadAtLast(t *testing.T) {
	n, args := stormNamespace(t, "--stats-interval", "0")
	healthy := filepath.Join(t.TempDir(), "healthy")
	tr := startTracer(t, append(args, "--output", "-", "--output", healthy+"?queue=64MiB&only=transition"))
	runStorm(t, n)
	tr.signal(syscall.SIGTERM)
	s := tr.end("signal")
	s.checkLosses(t, n, stormTransitions)
	if stop := s.last(); stop.LostQueue < stormTransitions/2 {
		t.Errorf("a full queue lost %d transitions, want most of the storm", stop.LostQueue)
	}
	if stop := fileStream(t, healthy, s.result).last(); stop.LostQueue != 0 || stop.Read != s.last().Read {
		t.Errorf("the healthy output ends with %s", stop.line)
	}
}

// The reader of standard output that goes away ends the run only where it is the sole output.
func TestOutputs_ReaderGone(t *testing.T) {
	requireRoot(t)
	path := filepath.Join(t.TempDir(), "records")
	tr := startTracer(t, append(slices.Clone(quiet), "--stats-interval", "10ms", "--output", "-", "--output", path))
	tr.out.Close()
	awaitGrowth(t, path, 20_000)
	tr.signal(syscall.SIGTERM)
	r := tr.waitUnread()
	r.mustEnd(t, 0)
	r.mustPrintError(t, "-: the reader of the output went away: this output gets no more records")
	fileStream(t, path, r)
}

// A disk that is full ends one output, not the run.
func TestOutputs_WriteFails(t *testing.T) {
	requireRoot(t)
	r := run(append(slices.Clone(quiet), "--duration", "300ms", "--stats-interval", "50ms", "--output", "-", "--output", "/dev/full?name=disk"))
	r.mustEnd(t, 1)
	const full = "disk: write /dev/full: no space left on device"
	r.mustPrintError(t, full+": this output gets no more records\ntcpshift: "+full)
	parseStream(t, r)
}

// SIGHUP opens all files again.
func TestOutputs_ReopenAll(t *testing.T) {
	requireRoot(t)
	dir := t.TempDir()
	paths := []string{filepath.Join(dir, "a"), filepath.Join(dir, "b")}
	tr := startTracer(t, append(slices.Clone(quiet), "--stats-interval", "1ms", "--output", "-",
		"--output", paths[0], "--output", paths[1]+"?only=stats"))
	for _, path := range paths {
		awaitFile(t, path).Close()
		if err := os.Rename(path, path+".1"); err != nil {
			t.Fatal(err)
		}
	}
	tr.signal(syscall.SIGHUP)
	for _, path := range paths {
		awaitGrowth(t, path, 0)
	}
	r := tr.stop().result
	for _, path := range paths {
		old, err := os.ReadFile(path + ".1")
		if err != nil {
			t.Fatal(err)
		}
		current, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		r.stdout = string(old) + string(current)
		parseStream(t, r)
	}
}

// Two outputs to one place are refused, however the place is written.
func TestOutputs_SamePlace(t *testing.T) {
	requireRoot(t)
	dir := t.TempDir()
	path, linked := filepath.Join(dir, "records"), filepath.Join(dir, "link")
	if err := os.Symlink(dir, linked); err != nil {
		t.Fatal(err)
	}
	for _, pair := range [][2]string{
		{path, path}, {path, dir + "/./records"}, {path, "file:" + path + "?format=text"}, {"-", "-?format=text"},
	} {
		r := run(flags("--output", pair[0], "--output", pair[1]))
		r.mustEnd(t, 2)
		r.mustPrintError(t, fmt.Sprintf("--output: %s and %s are the same: use one of them", pair[0], pair[1]))
	}
	r := run(flags("--output", path, "--output", linked+"/records"))
	r.mustEnd(t, 2)
	r.mustPrintError(t, fmt.Sprintf("--output: %s and %s/records are the same file: use one of them", path, linked))
	r = run(flags("--output", "-", "--output", "/dev/stdout"))
	r.mustEnd(t, 2)
	r.mustPrintError(t, "--output: - and /dev/stdout are the same file: use one of them")
	r = run(append(slices.Clone(quiet), "--duration", "1ms", "--output", "/dev/null", "--output", "/dev/null"))
	r.mustEnd(t, 0)
}

// --count counts transitions, whatever the outputs select.
func TestOutputs_CountBeforeSelection(t *testing.T) {
	s := newTraffic(t)
	path := filepath.Join(t.TempDir(), "ends")
	tr := launch(t, append(s.byNetns(), "--count", "40", "--only", "connection", "--output", path))
	awaitFile(t, path).Close()
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		if content, err := os.ReadFile(path); err == nil && len(content) > 0 {
			break
		}
		if time.Since(began) > waitLimit {
			t.Fatal("no start record")
		}
	}
	s.makeConnections()
	r := tr.wait()
	r.mustEnd(t, 0)
	if stop := fileStream(t, path, r).last(); stop.Reason != "count" || stop.Read < 40 || stop.Dropped != stop.Read {
		t.Errorf("want the reason count after 40 transitions: %s", stop.line)
	}
}
