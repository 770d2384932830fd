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

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// A storm of this many connections makes about 12 MiB of transition records, which
// no pipe and no queue of these tests takes.
const (
	stormConnections = 3000
	stormTransitions = 10*stormConnections + 2*2 // and those of two listeners
)

// stormy is a namespace, and what a tracer needs to see nothing else.
func stormy(t *testing.T, args ...string) (*tcplab.Netns, []string) {
	t.Helper()
	requireRoot(t)
	n := tcplab.NewNetns(t)
	return n, append(flags("--netns", strconv.FormatUint(uint64(n.Inode()), 10), "--queue-size", "256KiB"), args...)
}

func blow(t *testing.T, n *tcplab.Netns) {
	t.Helper()
	if made := tcplab.Storm(n, tcplab.StormConfig{Connections: stormConnections}); made != stormConnections {
		t.Fatalf("the storm made %d connections, want %d", made, stormConnections)
	}
}

// checkLosses: each event of the namespace is accounted for, and each loss is said
// where it is counted.
func (s stream) checkLosses(t *testing.T, made uint64) {
	t.Helper()
	stop := s.last()
	lost := make(map[string]uint64)
	var conns uint64
	for _, l := range s.of("loss") {
		lost[l.Cause] += l.Lost
		conns += l.LostConns
	}
	for cause, want := range map[string]uint64{
		"ring_full": stop.LostRingFull, "ring_busy": stop.LostRingBusy, "queue_full": stop.LostQueue,
	} {
		if lost[cause] != want {
			t.Errorf("the loss records say %d for %s, stop says %d", lost[cause], cause, want)
		}
	}
	if conns != stop.LostConns {
		t.Errorf("the loss records say %d connections, stop says %d", conns, stop.LostConns)
	}
	// What is lost to re-entry has not come to the filter: it may be anybody's.
	told := stop.Read + stop.LostRingFull + stop.LostRingBusy + stop.Deferred
	if told > made || told+stop.LostReentry < made {
		t.Errorf("%d transitions are read or lost, and %d in re-entry; %d were made: %s", told, stop.LostReentry, made, stop.line)
	}
}

// isWhole checks that no transition of the scene's connection is missing.
func (s stream) isWhole(t *testing.T, after int) {
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

// plainTransitions are a listener's two and five of either side.
const plainTransitions = 12

func connectPlain(t *testing.T, n *tcplab.Netns) {
	t.Helper()
	(&scene{t: t, n: n}).connect(n, plain)
	n.Settle(0)
}

// stormIsOver says that a line is stats in which the whole storm is read or lost,
// so that from then on the tracer has nothing else to do.
func stormIsOver(line string) bool {
	var r record
	return json.Unmarshal([]byte(line), &r) == nil && r.Type == "stats" &&
		r.Read+r.LostRingFull+r.LostRingBusy+r.LostReentry >= stormTransitions
}

func TestBackpressure_OneLossRecord(t *testing.T) {
	// The ring has room for a third of the storm: the rest is read while nobody reads.
	n, args := stormy(t, "--buffer-size", "1MiB", "--stats-interval", "100ms")
	tr := startTracer(t, args)
	blow(t, n)
	tr.await("stats after the storm", stormIsOver)
	connectPlain(t, n)
	s := tr.stop()
	s.checkLosses(t, stormTransitions+plainTransitions)
	// Where the test itself is slow there is more than one stall.
	last := 0
	for i, r := range s.records {
		if r.Cause == "queue_full" {
			last = i
		}
	}
	if last == 0 {
		t.Fatalf("no loss is said: %s", s.last().line)
	}
	s.isWhole(t, last)
	if stop := s.last(); stop.LostQueue < stormTransitions/3 || stop.LostConns == 0 {
		t.Errorf("a full queue cost %d transitions and %d connections, want most of the storm: the ring was not read", stop.LostQueue, stop.LostConns)
	}
}

func TestBackpressure_MemoryBound(t *testing.T) {
	n, args := stormy(t, "--stats-interval", "0")
	tr := startTracer(t, args)
	before := anonymous(t, tr)
	for range 4 {
		blow(t, n) // 48 MiB of records
	}
	// The queue, again as much until it is collected, the tables of detection.
	const most = 24 << 10
	if grown := anonymous(t, tr) - before; grown > most {
		t.Errorf("it has grown by %d KiB, want %d at most", grown, most)
	}
	tr.stop().checkLosses(t, 4*stormTransitions)
}

// anonymous is how much memory of its own a tracer has, in KiB.
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

func TestBackpressure_AlertInOrder(t *testing.T) {
	n, args := stormy(t, "--connect-failures", "20", "--stats-interval", "0")
	stalled := startTracer(t, args)
	other := startTracer(t, append(flags("alerts"), args[:len(args)-2]...)) // who reads
	blow(t, n)
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
				_ = s.TryConnect(plain.to) // nobody listens
				s.Close()
				made++
			}
		}
	}()
	other.await("alert of the tracer that is read", isOpen)
	time.Sleep(time.Second) // the other one is about there, too; it has no way to tell
	close(refuse)
	refused := <-ended
	stalled.await("alert", isOpen)
	s := stalled.stop()
	s.checkLosses(t, stormTransitions+2*uint64(refused))
	var order []string
	for _, r := range s.records {
		if r.Kind == "connect_failures" || r.Cause == "queue_full" {
			order = append(order, r.Type+r.Phase)
		}
	}
	if len(order) < 3 || order[0] != "alertopen" || !strings.HasSuffix(strings.Join(order, " "), "alertclose") {
		t.Errorf("alerts and losses come as %q, want the alert opened before the loss is said, and closed", order)
	}
	other.stop()
}

func TestBackpressure_StalledReaderDies(t *testing.T) {
	n, args := stormy(t)
	tr := startTracer(t, args)
	blow(t, n)
	tr.out.Close()
	r := tr.waitUnread()
	r.mustEnd(t, 0)
	r.mustSay(t, "")
}

func TestLoss_StoppedTracer(t *testing.T) {
	n, args := stormy(t, "--buffer-size", "64KiB")
	tr := startTracer(t, args)
	tr.signal(syscall.SIGSTOP)
	tr.isStopped()
	blow(t, n)
	tr.signal(syscall.SIGCONT)
	tr.await("loss", func(line string) bool { return strings.Contains(line, `"cause":"ring_full"`) })
	connectPlain(t, n)
	s := tr.stop()
	s.checkLosses(t, stormTransitions+plainTransitions)
	s.isWhole(t, 0)
	if stop := s.last(); stop.LostRingFull < stormTransitions/2 {
		t.Errorf("%d transitions found the ring full, want most of %d", stop.LostRingFull, stormTransitions)
	}
}

func (tr *tracer) isStopped() {
	tr.t.Helper()
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", tr.cmd.Process.Pid))
		if err != nil || time.Since(began) > patience {
			tr.fatalf("it does not stop: %s %v", stat, err)
		}
		if _, after, _ := bytes.Cut(stat, []byte(") ")); bytes.HasPrefix(after, []byte("T")) {
			return
		}
	}
}

func TestLoss_FullDiskFreed(t *testing.T) {
	n, args := stormy(t, "--output", "/mnt/records", "--stats-interval", "100ms", "--buffer-size", "256KiB")
	said, stderr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
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
	blow(t, n)
	const full = "tcpshift: write /mnt/records: no space left on device: it goes on when there is room again\n"
	lines := bufio.NewReader(said)
	if line, err := lines.ReadString('\n'); line != full {
		t.Errorf("it says %q, %v; want %q", line, err, full)
	}
	if err := os.Remove(filepath.Join(mount, "ballast")); err != nil {
		t.Fatal(err)
	}
	awaitLine(t, records, stormIsOver)
	connectPlain(t, n)
	tr.signal(syscall.SIGTERM)
	r := tr.waitUnread()
	r.mustEnd(t, 0)
	r.stdout = awaitLine(t, records, func(line string) bool { return strings.HasPrefix(line, `{"type":"stop"`) })
	s := parseStream(t, r)
	s.checkLosses(t, stormTransitions+plainTransitions)
	s.isWhole(t, 0)
	if stop := s.last(); stop.LostQueue == 0 {
		t.Errorf("nothing is lost, though the disk was full: %s", stop.line)
	}
}

// awaitFile opens a file once the stream has begun in it.
func awaitFile(t *testing.T, path string) *os.File {
	t.Helper()
	for began := time.Now(); time.Since(began) < patience; time.Sleep(time.Millisecond) {
		if f, err := os.Open(path); err == nil {
			awaitLine(t, f, func(line string) bool { return strings.HasPrefix(line, `{"type":"start"`) })
			return f
		}
	}
	t.Fatalf("no %s within %v", path, patience)
	return nil
}

// awaitLine gives the content of a file once a line in it is as wanted.
func awaitLine(t *testing.T, f *os.File, wanted func(line string) bool) string {
	t.Helper()
	for began := time.Now(); time.Since(began) < patience; time.Sleep(50 * time.Millisecond) {
		content := make([]byte, 24<<20)
		size, _ := f.ReadAt(content, 0)
		for line := range strings.Lines(string(content[:size])) {
			if wanted(line) {
				return string(content[:size])
			}
		}
	}
	t.Fatalf("%s does not hold what is wanted within %v", f.Name(), patience)
	return ""
}
