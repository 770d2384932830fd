package load_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/observer"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// stopCounts are the counters of a stop record that must add up.
type stopCounts struct {
	Fired, Filtered, Deferred, Read, Dropped, Written, Connections uint64

	OtherProtocol uint64 `json:"other_protocol"`
	LostRingFull  uint64 `json:"lost_ring_full"`
	LostRingBusy  uint64 `json:"lost_ring_busy"`
	LostReentry   uint64 `json:"lost_reentry"`
	LostQueueFull uint64 `json:"lost_queue_full"` // read from the ring, no room in the queue: this test reads slowly on a busy machine
	WrittenBytes  uint64 `json:"written_bytes"`
	TimeWaitEnds  uint64 `json:"time_wait_ends"`
}

func (s *stopCounts) lost() uint64 { return s.LostRingFull + s.LostRingBusy + s.LostReentry }

// tally is what the test counts in the stream.
type tally struct {
	lines       map[string]uint64 // by type, the ends of TIME_WAITs separately
	transitions observer.Counts   // of the namespace
	written     uint64            // bytes before the stop record
	stop        stopCounts
	err         error
}

// TestSoak_FlatAndAddsUp traces mixed load with all features on; make soak runs it for
// half an hour. Memory and descriptors stay flat, all counters add up, and the records
// are exactly the transitions for which the kernel calls a program.
func TestSoak_FlatAndAddsUp(t *testing.T) {
	tcplab.RequireRoot(t)
	n := tcplab.NewNetns(t)
	n.Sysctl("net.ipv4.tcp_max_tw_buckets", "1000000")
	observers := observer.Start(t, n.Inode())
	cmd := exec.Command(tcpshift, "--time-wait-end", "--stats-interval", "1s")
	counted := follow(t, cmd, n.Inode())

	var connections uint64
	var memory, files []int64
	for began, round := time.Now(), 0; round < 8 || time.Since(began) < *soak; round++ {
		connections += soakRound(t, n, round)
		memory, files = append(memory, anonOf(t, cmd.Process.Pid)), append(files, filesOf(t, cmd.Process.Pid))
	}
	if err := cmd.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	got := <-counted
	if err := cmd.Wait(); err != nil || got.err != nil {
		t.Fatalf("tcpshift: %v, its stream: %v", err, got.err)
	}
	want := observer.OfStorms(connections, uint64(len(memory)))
	checkSums(t, &got)
	calls := observers.Calls(t)
	calls.CheckMade(t, n, want)
	got.checkRecords(t, calls)
	t.Logf("\n%s. %d transitions of %d rounds, %d without a call of the observer, which missed %d of any kind, %d lost in the kernel, %d to a full queue; RssAnon %s MB, descriptors %s.",
		machine(), want.Sum(), len(memory), want.Sum()-calls.Sum(), calls.Missed, got.stop.lost(), got.stop.LostQueueFull, course(memory, 1e6), course(files, 1))
	if *soak >= time.Minute {
		checkFlat(t, "RssAnon", memory, 4<<20)
		checkFlat(t, "descriptors", files, 4)
	}
}

// soakRound is a storm, and a short-lived namespace with rare events.
func soakRound(t *testing.T, n *tcplab.Netns, round int) (connections uint64) {
	t.Helper()
	ends := []tcplab.StormEnd{tcplab.ClientFirst, tcplab.ServerFirst, tcplab.HalfClosed}
	// Other ports in each round: those of a server that closed first are in TIME_WAIT
	// for a minute.
	c := tcplab.StormConfig{Connections: 2000, End: ends[round%len(ends)], Port: 7000 + 2*uint16(round%10_000)}
	made := tcplab.Storm(n, c)
	t.Run(fmt.Sprint("round ", round), func(t *testing.T) {
		passing := tcplab.NewNetns(t)
		tcplab.Storm(passing, tcplab.StormConfig{Connections: 200, Family: tcplab.V6})
		for _, conversation := range []func(*tcplab.Netns, tcplab.Family) tcplab.Outcome{
			tcplab.Refused, tcplab.ResetByLinger0, tcplab.HalfClose, tcplab.SimultaneousClose, tcplab.UnacceptedChild, tcplab.NoPort,
		} {
			conversation(passing, tcplab.Family(round%2))
		}
	})
	if round%20 == 0 {
		if out, err := exec.Command(tcpshift, "snapshot", "--netns", fmt.Sprint(n.Inode())).CombinedOutput(); err != nil {
			t.Errorf("snapshot: %v: %s", err, out)
		}
	}
	return uint64(made)
}

// follow starts a tracer and counts its records until it ends.
func follow(t *testing.T, cmd *exec.Cmd, netns uint32) <-chan tally {
	t.Helper()
	cmd.Stderr = os.Stderr
	output, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	lines := bufio.NewScanner(output)
	if !lines.Scan() {
		t.Fatal("no start record")
	}
	counted := make(chan tally, 1)
	go func() {
		c := tally{lines: make(map[string]uint64), transitions: make(observer.Counts), written: uint64(len(lines.Bytes())) + 1}
		here := fmt.Appendf(nil, `"netns":%d,`, netns)
		for lines.Scan() {
			c.add(lines.Bytes(), here)
		}
		c.err = lines.Err()
		counted <- c
	}()
	return counted
}

func (c *tally) add(line, here []byte) {
	rest, _ := bytes.CutPrefix(line, []byte(`{"type":"`))
	kind, _, _ := bytes.Cut(rest, []byte(`"`))
	switch {
	case string(kind) == "stop":
		c.err = json.Unmarshal(line, &c.stop)
		return
	case bytes.Contains(line, []byte(`"old_state":"TIME_WAIT"`)):
		kind = []byte("end")
	case string(kind) == "transition" && bytes.Contains(line, here):
		c.transitions[observer.Pair{From: textOf(line, "old_state"), To: textOf(line, "new_state")}]++
	}
	c.lines[string(kind)]++
	c.written += uint64(len(line)) + 1
}

// checkRecords checks that the stream has each transition for which the kernel called a
// program, and no other. If neither side missed or lost one, the counts are equal.
func (c *tally) checkRecords(t *testing.T, calls observer.Calls) {
	t.Helper()
	lost := c.stop.lost() + c.stop.Dropped + c.stop.LostQueueFull
	for p := range observer.Union(calls.Counts, c.transitions) {
		if got, want := c.transitions[p], calls.Counts[p]; got > want+calls.Missed || got+lost < want {
			t.Errorf("records of %d transitions %v, and %d lost of any kind; the kernel called another program for %d, which missed %d of any kind", got, p, lost, want, calls.Missed)
		}
	}
	if got, want := c.transitions.Sum(), calls.Sum(); got > want+calls.Missed || got+lost < want {
		t.Errorf("records of %d transitions, and %d lost; the kernel called another program for %d, which missed %d", got, lost, want, calls.Missed)
	}
}

// textOf returns the value of a key that has text without escapes.
func textOf(line []byte, key string) string {
	_, after, _ := bytes.Cut(line, []byte(`"`+key+`":"`))
	text, _, _ := bytes.Cut(after, []byte(`"`))
	return string(text)
}

// checkSums checks that the counters of the stop record agree with the stream and with
// each other.
func checkSums(t *testing.T, c *tally) {
	t.Helper()
	s := &c.stop
	for _, sum := range []struct {
		what      string
		got, want uint64
	}{
		{"transitions written", s.Written, c.lines["transition"]},
		{"connections", s.Connections, c.lines["connection"]},
		{"ends of TIME_WAITs", s.TimeWaitEnds, c.lines["end"]},
		{"bytes", s.WrittenBytes, c.written},
		{"seen", s.Fired - s.OtherProtocol, s.Filtered + s.lost() + s.Deferred + s.Read},
		{"read", s.Read, s.Written + s.Dropped + s.LostQueueFull},
	} {
		if sum.got != sum.want {
			t.Errorf("stop counts %d of %s, the stream has %d: %+v", sum.got, sum.what, sum.want, *s)
		}
	}
}

// checkFlat compares the last quarter with the second.
func checkFlat(t *testing.T, what string, values []int64, slack int64) {
	t.Helper()
	quarter := len(values) / 4
	early, late := slices.Max(values[quarter:2*quarter]), slices.Max(values[3*quarter:])
	if late > early+slack {
		t.Errorf("%s grows: at most %d in the second quarter, %d in the last", what, early, late)
	}
}

// course returns the maximum of each quarter.
func course(values []int64, unit float64) (text string) {
	quarter := max(1, len(values)/4)
	for i := 0; i+quarter <= len(values); i += quarter {
		text += fmt.Sprintf("%.4g ", float64(slices.Max(values[i:i+quarter]))/unit)
	}
	return text
}

func filesOf(t *testing.T, pid int) int64 {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return int64(len(entries))
}
