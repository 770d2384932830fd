package pipelines_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	// followed is the file that some examples follow.
	followed = "/var/log/tcpshift.ndjson"
	// rotated is a name as rotation gives it to such a file.
	rotated = followed + ".20261129T000000.000000000Z"
)

// batchOfRsyslog is how many lines imfile may have written and not noted as read when it is killed.
const batchOfRsyslog = 1024

// rsyslog reads files that were rotated while it was away, even if it was killed. Only then may it store some lines
// twice.
func TestRsyslog_RotatedWhileAway(t *testing.T) {
	needs(t, "rsyslogd")
	for signal, twice := range map[syscall.Signal]int{syscall.SIGTERM: 0, syscall.SIGKILL: batchOfRsyslog} {
		t.Run(signal.String(), func(t *testing.T) {
			f := &follower{example: openExample(t, "rsyslog-file.conf"), consumer: "rsyslogd", stored: storedLines}
			f.as = func(line string) string { return line }
			f.testRotated(signal, twice)
		})
	}
}

// The Collector reads them, too, and delivers no line twice.
func TestOtelcol_RotatedWhileAway(t *testing.T) {
	needs(t)
	build(t, "otelcol", ".")
	f := &follower{example: openExample(t, "otelcol-file.yaml"), consumer: "otelcol"}
	f.stored = listenOTLP(t, "127.0.0.1:4318").read
	f.as = func(line string) string { return fileRecordOf(t, line) }
	f.testRotated(syscall.SIGTERM, 0)
}

// follower is an example whose consumer follows a file.
type follower struct {
	*example
	consumer string                   // a word of its command
	stored   func() []string          // what it has delivered
	as       func(line string) string // what a line becomes
}

// testRotated rotates the file while the consumer runs, while it is away after a signal, and while it runs again. Each
// line of all files must be delivered, and after the signal so many may come twice.
func (f *follower) testRotated(end syscall.Signal, twice int) {
	f.t.Helper()
	freshFiles(f.t)
	size := regexp.MustCompile(`rotate-size=[^&' ]+`)
	f.tcpshift = f.start(size.ReplaceAllString(f.command("tcpshift --"), "rotate-size=64KiB")) // the smallest
	f.await("start of tcpshift", func() bool { return len(f.want()) > 0 })
	running := f.start(f.command(f.consumer))
	f.awaitAll(0)
	f.rotate(1)
	f.awaitAll(0)
	running.end(end)
	f.rotate(3)
	f.start(f.command(f.consumer))
	f.awaitAll(twice)
	f.rotate(1)
	f.stop()
	f.awaitAll(twice)
}

// rotate makes connections until so many more files are old, and some for the new file.
func (f *follower) rotate(times int) {
	f.t.Helper()
	for before := len(f.oldFiles()); len(f.oldFiles()) < before+times; {
		f.connect(1)
	}
	f.connect(5)
}

func (f *follower) connect(times int) {
	f.t.Helper()
	for range times {
		if err := connectOnce(); err != nil {
			f.t.Fatal(err)
		}
	}
	time.Sleep(10 * time.Millisecond) // the records are on their way
}

// oldFiles returns the names that rotation has given to files.
func (f *follower) oldFiles() []string {
	f.t.Helper()
	return must(filepath.Glob(followed + ".2*"))
}

// awaitAll waits until each line that is in a file has been delivered, and fails if more than so many have come twice.
func (f *follower) awaitAll(twice int) {
	f.t.Helper()
	var lines, missing []string
	var delivered int
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		lines, missing = nil, nil
		for _, name := range append(f.oldFiles(), followed) {
			lines = append(lines, readLines(name)...)
		}
		stored := f.stored()
		delivered = len(stored)
		have := make(map[string]bool, delivered)
		for _, line := range stored {
			have[line] = true
		}
		for _, line := range lines {
			if !have[f.as(line)] {
				missing = append(missing, line)
			}
		}
		if len(lines) > 0 && len(missing) == 0 || time.Since(began) > waitLimit/3 {
			break
		}
	}
	f.t.Logf("%d files, %d lines, %d delivered", len(f.oldFiles())+1, len(lines), delivered)
	if len(missing) > 0 {
		f.t.Fatalf("%d of %d lines are missing, the first is %s", len(missing), len(lines), missing[0])
	}
	if !strings.Contains(lines[0], "start") {
		f.t.Fatalf("rotation has removed the first file: the test has made too many: %s", lines[0])
	}
	if delivered > len(lines)+twice {
		f.t.Errorf("%d lines have come twice, want %d at most", delivered-len(lines), twice)
	}
}

// writeRotated writes lines as a file that a rotation has left.
func writeRotated(t testing.TB, lines []string) {
	t.Helper()
	if err := os.WriteFile(rotated, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}
