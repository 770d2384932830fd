package cli_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/test/observer"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// A storm of this size makes about 12 MiB of transition records, more than the pipes
// and queues of these tests take.
const (
	stormConnections = 3000
	stormTransitions = 10*stormConnections + 2*2 // with those of two listeners
)

// stormNetns is a namespace for a storm, in which another program counts the transitions.
type stormNetns struct {
	*tcplab.Netns
	observers *observer.Observers
}

// stormNamespace makes a namespace for a storm, and the arguments to trace that
// namespace only.
func stormNamespace(t *testing.T, args ...string) (stormNetns, []string) {
	t.Helper()
	requireRoot(t)
	n := tcplab.NewNetns(t)
	return stormNetns{n, observer.Start(t, n.Inode())}, append(flags("--netns", strconv.FormatUint(uint64(n.Inode()), 10), "--queue-size", "256KiB"), args...)
}

func runStorm(t *testing.T, n stormNetns) {
	t.Helper()
	if made := tcplab.Storm(n.Netns, tcplab.StormConfig{Connections: stormConnections}); made != stormConnections {
		t.Fatalf("the storm made %d connections, want %d", made, stormConnections)
	}
}

// checkLosses checks that stop accounts for each event of the namespace for which the kernel
// calls a program, and that the loss records add up to its counters.
func (s stream) checkLosses(t *testing.T, n stormNetns, made uint64) {
	t.Helper()
	stop := s.last()
	lost := make(map[string]uint64)
	var conns uint64
	for _, l := range s.of("loss") {
		lost[l.Cause] += l.Lost
		conns += l.LostConns
	}
	lost["queue_full"] += lost["spool_full"]
	for cause, want := range map[string]uint64{
		"ring_full": stop.LostRingFull, "ring_busy": stop.LostRingBusy, "queue_full": stop.LostQueue,
	} {
		if lost[cause] != want {
			t.Errorf("the loss records add up to %d for %s, stop has %d", lost[cause], cause, want)
		}
	}
	if conns != stop.LostConns {
		t.Errorf("the loss records add up to %d connections, stop has %d", conns, stop.LostConns)
	}
	// Events lost to re-entry have not passed the filter, so they may be of other
	// namespaces.
	accounted := stop.Read + stop.LostRingFull + stop.LostRingBusy + stop.Deferred
	hidden := n.observers.Calls(t).Hidden(made)
	if accounted > made || accounted+stop.LostReentry+hidden < made {
		t.Errorf("%d transitions read or lost, and %d lost to re-entry, want %d in all, less %d that no program saw: %s", accounted, stop.LostReentry, made, hidden, stop.line)
	}
}

// mustBeWhole checks that no transition of the plain connection is missing.
func (s stream) mustBeWhole(t *testing.T, after int) {
	t.Helper()
	var seen int
	for _, r := range s.records[after:] {
		if r.Type == "transition" && (r.LocalPort == plain.to.Port() || r.PeerPort == plain.to.Port()) {
			seen++
		}
	}
	if lost := s.last().LostReentry; uint64(seen)+lost < plainTransitions {
		t.Errorf("%d transitions of the connection after the stall, want %d", seen, plainTransitions)
	}
}

// two of the listener and five of either side
const plainTransitions = 12

func connectPlain(t *testing.T, n *tcplab.Netns) {
	t.Helper()
	(&traffic{t: t, n: n}).connect(n, plain)
	n.Settle(0)
}

// stormIsOver reports whether a line is a stats record in which the whole storm is read
// or lost. After it the tracer has nothing else to do. The storm must have been run.
func (n stormNetns) stormIsOver(t *testing.T) func(line string) bool {
	t.Helper()
	want := stormTransitions - n.observers.Calls(t).Hidden(stormTransitions)
	return func(line string) bool {
		var r record
		return json.Unmarshal([]byte(line), &r) == nil && r.Type == "stats" &&
			r.Read+r.LostRingFull+r.LostRingBusy+r.LostReentry >= want
	}
}

// While its reader stalls, the tracer counts what it loses in one loss record, which
// stands where the records are missing. All later records are complete.
func TestBackpressure_OneLossRecord(t *testing.T) {
	// The ring has room for a third of the storm. The tracer reads the rest while its
	// own reader stalls.
	n, args := stormNamespace(t, "--buffer-size", "1MiB", "--stats-interval", "100ms")
	tr := startTracer(t, args)
	runStorm(t, n)
	tr.await("stats after the storm", n.stormIsOver(t))
	connectPlain(t, n.Netns)
	s := tr.stop()
	s.checkLosses(t, n, stormTransitions+plainTransitions)
	// If the test itself is slow there may be several stalls.
	last := 0
	for i, r := range s.records {
		if r.Cause == "queue_full" {
			last = i
		}
	}
	if last == 0 {
		t.Fatalf("no loss record: %s", s.last().line)
	}
	s.mustBeWhole(t, last)
	if stop := s.last(); stop.LostQueue < stormTransitions/3 || stop.LostConns == 0 {
		t.Errorf("a full queue lost %d transitions and %d connections, want most of the storm", stop.LostQueue, stop.LostConns)
	}
}

// A storm does not make the tracer use more memory than its queue may.
func TestBackpressure_MemoryBound(t *testing.T) {
	n, args := stormNamespace(t, "--stats-interval", "0")
	tr := startTracer(t, args)
	before := anonymous(t, tr)
	for range 4 {
		runStorm(t, n) // 48 MiB of records
	}
	// The queue, as much again until it is collected, and the tables of detection.
	const most = 24 << 10
	if grown := anonymous(t, tr) - before; grown > most {
		t.Errorf("the tracer has grown by %d KiB, want at most %d", grown, most)
	}
	tr.stop().checkLosses(t, n, 4*stormTransitions)
}

// anonymous returns RssAnon of the tracer in KiB.
func anonymous(t *testing.T, tr *tracer) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tr.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var kib int
		if _, err := fmt.Sscanf(line, "RssAnon: %d kB", &kib); err == nil {
			return kib
		}
	}
	t.Fatalf("no RssAnon in %s", status)
	return 0
}

// While the reader stalls, alerts stay in order with the loss records.
func TestBackpressure_AlertInOrder(t *testing.T) {
	n, args := stormNamespace(t, "--connect-failures", "20", "--stats-interval", "0")
	stalled := startTracer(t, args)
	other := startTracer(t, append(flags("alerts"), args[:len(args)-2]...)) // a tracer with a reader
	runStorm(t, n)
	isOpen := func(line string) bool {
		return strings.Contains(line, `"kind":"connect_failures","phase":"open"`)
	}
	refuse := make(chan struct{})
	ended := make(chan int)
	go func() {
		made := 0
		for ; ; time.Sleep(10 * time.Millisecond) {
			select {
			case <-refuse:
				ended <- made
				return
			default:
				s := n.Socket(plain.from.Addr())
				_ = s.TryConnect(plain.to) // no listener there
				s.Close()
				made++
			}
		}
	}()
	other.await("alert of the tracer that is read", isOpen)
	time.Sleep(time.Second) // the stalled tracer is about as far, but cannot show it
	close(refuse)
	refused := <-ended
	stalled.await("alert", isOpen)
	s := stalled.stop()
	s.checkLosses(t, n, stormTransitions+2*uint64(refused))
	var order []string
	for _, r := range s.records {
		if r.Kind == "connect_failures" || r.Cause == "queue_full" {
			order = append(order, r.Type+r.Phase)
		}
	}
	if len(order) < 3 || order[0] != "alertopen" || !strings.HasSuffix(strings.Join(order, " "), "alertclose") {
		t.Errorf("alerts and losses come as %q, want the open alert, the loss, the closed alert", order)
	}
	other.stop()
}

// A stalled reader that exits is a normal end.
func TestBackpressure_StalledReaderDies(t *testing.T) {
	n, args := stormNamespace(t)
	tr := startTracer(t, args)
	runStorm(t, n)
	tr.out.Close()
	r := tr.waitUnread()
	r.mustEnd(t, 0)
	r.mustPrintError(t, "")
}

// A tracer that was stopped (SIGSTOP) and continued counts the transitions that it
// missed.
func TestLoss_StoppedTracer(t *testing.T) {
	n, args := stormNamespace(t, "--buffer-size", "64KiB")
	tr := startTracer(t, args)
	tr.signal(syscall.SIGSTOP)
	tr.awaitStopped()
	runStorm(t, n)
	tr.signal(syscall.SIGCONT)
	tr.await("loss", func(line string) bool { return strings.Contains(line, `"cause":"ring_full"`) })
	connectPlain(t, n.Netns)
	s := tr.stop()
	s.checkLosses(t, n, stormTransitions+plainTransitions)
	s.mustBeWhole(t, 0)
	if stop := s.last(); stop.LostRingFull < stormTransitions/2 {
		t.Errorf("lost_ring_full is %d, want most of %d", stop.LostRingFull, stormTransitions)
	}
}

func (tr *tracer) awaitStopped() {
	tr.t.Helper()
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", tr.cmd.Process.Pid))
		if err != nil || time.Since(began) > waitLimit {
			tr.fatalf("the tracer did not stop: %s %v", stat, err)
		}
		if _, after, _ := bytes.Cut(stat, []byte(") ")); bytes.HasPrefix(after, []byte("T")) {
			return
		}
	}
}

// When a full disk has space again, the stream continues with a count of the lost
// records.
func TestLoss_FullDiskFreed(t *testing.T) {
	n, args := stormNamespace(t, "--output", "/mnt/records", "--stats-interval", "100ms", "--buffer-size", "256KiB")
	messages, stderr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer messages.Close()
	var tr *tracer
	err = onThread(func() error {
		if err := privateMount("/mnt", "size=24m"); err != nil {
			return err
		}
		if err := os.WriteFile("/mnt/ballast", make([]byte, 24<<20-128<<10), 0o600); err != nil {
			return err
		}
		tr = launch(t, args, func(cmd *exec.Cmd) { cmd.Stderr = stderr })
		return nil
	})
	stderr.Close()
	if err != nil {
		t.Fatal(err)
	}
	mount := fmt.Sprintf("/proc/%d/root/mnt", tr.cmd.Process.Pid)
	records := awaitFile(t, filepath.Join(mount, "records"))
	defer records.Close()
	runStorm(t, n)
	const full = "tcpshift: write /mnt/records: no space left on device: writing continues as soon as there is space\n"
	lines := bufio.NewReader(messages)
	if line, err := lines.ReadString('\n'); line != full {
		t.Errorf("standard error is %q, %v; want %q", line, err, full)
	}
	if err := os.Remove(filepath.Join(mount, "ballast")); err != nil {
		t.Fatal(err)
	}
	awaitLine(t, records, n.stormIsOver(t))
	connectPlain(t, n.Netns)
	tr.signal(syscall.SIGTERM)
	r := tr.waitUnread()
	r.mustEnd(t, 0)
	r.stdout = awaitLine(t, records, func(line string) bool { return strings.HasPrefix(line, `{"type":"stop"`) })
	s := parseStream(t, r)
	s.checkLosses(t, n, stormTransitions+plainTransitions)
	s.mustBeWhole(t, 0)
	if stop := s.last(); stop.LostQueue == 0 {
		t.Errorf("want lost records, the disk was full: %s", stop.line)
	}
}

// awaitFile opens a file when the stream has begun in it.
func awaitFile(t *testing.T, path string) *os.File {
	t.Helper()
	for began := time.Now(); time.Since(began) < waitLimit; time.Sleep(time.Millisecond) {
		if f, err := os.Open(path); err == nil {
			awaitLine(t, f, func(line string) bool { return strings.HasPrefix(line, `{"type":"start"`) })
			return f
		}
	}
	t.Fatalf("no %s within %v", path, waitLimit)
	return nil
}

// awaitLine returns the content of a file when it contains a wanted line.
func awaitLine(t *testing.T, f *os.File, wanted func(line string) bool) string {
	t.Helper()
	for began := time.Now(); time.Since(began) < waitLimit; time.Sleep(50 * time.Millisecond) {
		content := make([]byte, 24<<20)
		size, _ := f.ReadAt(content, 0)
		for line := range strings.Lines(string(content[:size])) {
			if wanted(line) {
				return string(content[:size])
			}
		}
	}
	t.Fatalf("%s did not contain the wanted line within %v", f.Name(), waitLimit)
	return ""
}
