package kernel_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/test/lab"
)

// stormConnections is enough for the programs to interrupt each other often; an
// emulated kernel gets fewer.
func stormConnections(t *testing.T) int {
	t.Helper()
	text := os.Getenv("TCPSHIFT_STORM_CONNECTIONS")
	if text == "" {
		return 50_000
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("TCPSHIFT_STORM_CONNECTIONS: %v", err)
	}
	return n
}

// shareOfStorm is how much there is of something where storms are of full size, or as
// much less as they are smaller, but at least so much.
func shareOfStorm(t *testing.T, whole, least int) int {
	t.Helper()
	return max(least, min(whole, whole*stormConnections(t)/50_000))
}

func TestAStormIsToldToTheLastTransition(t *testing.T) {
	storms(t, stormCase{connections: stormConnections(t), buckets: manyBuckets})
}

// However connections are closed: each TIME_WAIT by the kernel's own count is told,
// and nothing else is told as one.
func TestTheTimeWaitsOfAStormAreThoseThatTheKernelCounts(t *testing.T) {
	for _, f := range []lab.Family{lab.V4, lab.V6} {
		for _, end := range []lab.StormEnd{lab.ClientFirst, lab.ServerFirst, lab.HalfClosed, lab.Together} {
			t.Run(fmt.Sprintf("%v %v", end, f), func(t *testing.T) {
				storms(t, stormCase{end: end, family: f, connections: stormConnections(t) / 5, buckets: manyBuckets})
			})
		}
	}
}

// Where no more TIME_WAITs may be, the rest of the connections end in CLOSE: as many
// as the kernel counts as overflow.
func TestInAStormThatOverflowsTheTimeWaitsAreThoseThatHadRoom(t *testing.T) {
	for _, f := range []lab.Family{lab.V4, lab.V6} {
		for _, end := range []lab.StormEnd{lab.ClientFirst, lab.ServerFirst, lab.HalfClosed, lab.Together} {
			t.Run(fmt.Sprintf("%v %v", end, f), func(t *testing.T) {
				connections := stormConnections(t) / 10
				storms(t, stormCase{end: end, family: f, connections: connections, buckets: connections / 3})
			})
		}
	}
}

// By default small machines have few, and a connection without a TIME_WAIT may end in
// a reset.
const manyBuckets = 1_000_000

type stormCase struct {
	end         lab.StormEnd
	family      lab.Family
	connections int
	buckets     int // as many TIME_WAITs may be at a time
}

// storms takes a storm anew where the kernel hides events in some runs.
func storms(t *testing.T, c stormCase) {
	t.Helper()
	var problems []string
	for range lab.Attempts() {
		if problems = tellStorm(t, c); len(problems) == 0 {
			return
		}
		t.Log(problems)
	}
	t.Error(strings.Join(problems, "\n"))
}

// tellStorm gives what the tracer tells otherwise than the kernel counted.
func tellStorm(t *testing.T, c stormCase) []string {
	t.Helper()
	const workers = 2
	if err := retireShared(); err != nil {
		t.Error(err)
	}
	n := lab.NewNetns(t)
	n.Sysctl("net.ipv4.tcp_max_tw_buckets", strconv.Itoa(c.buckets))
	tr := startTracer(t, in(n))
	before := timeWaitCounts(t, n)
	began := time.Now()
	made := lab.Storm(n, lab.StormConfig{Connections: c.connections, Workers: workers, Family: c.family, End: c.end})
	took := time.Since(began)
	after := timeWaitCounts(t, n)
	told := tally(tr.stop())
	kernel := timeWaits{after.begun - before.begun, after.overflowed - before.overflowed}
	t.Logf("%d connections in %v, %.0f a second; the first program missed %d; by the kernel's count %+v; told %v",
		made, took.Round(time.Millisecond), float64(made)/took.Seconds(), told.stop.Missed, kernel, told.kinds)

	// The handshake's last segment on two CPUs at once: one child too many.
	doubles := told.count("SYN_RECV > CLOSE")
	// Without room for its TIME_WAIT a socket answers with a reset: to a peer that has not
	// closed yet, that is its end.
	resets := told.count("CLOSE_WAIT > CLOSE")
	return told.compare(t, uint64(10*made+2*workers)+2*doubles-resets, kernel)
}

// toldStorm is how often which transition was told.
type toldStorm struct {
	stop  line
	kinds map[string]uint64
}

func tally(lines []line) toldStorm {
	told := toldStorm{lines[len(lines)-1], map[string]uint64{}}
	for _, l := range lines {
		if l.Type == "transition" {
			told.kinds[strings.TrimSpace(l.Old+" > "+l.New+" "+l.Error)]++
		}
	}
	return told
}

// count takes errors for the same: a reset in LAST_ACK is still its end.
func (s toldStorm) count(kinds ...string) (sum uint64) {
	for kind, n := range s.kinds {
		for _, k := range kinds {
			if kind == k || strings.HasPrefix(kind, k+" ") {
				sum += n
			}
		}
	}
	return sum
}

// compare holds what was told against what happened. A kernel that hides events hides
// FIN_WAIT1 to FIN_WAIT2 and what comes with it, the TIME_WAIT or the CLOSE in its
// place: both are counted by other means, and nothing else may be missing. What was
// lost may be anything.
func (s toldStorm) compare(t *testing.T, happened uint64, kernel timeWaits) (problems []string) {
	t.Helper()
	lost := s.stop.LostRingFull + s.stop.LostRingBusy + s.stop.LostReentry
	if lost > mayLose(t, s.stop.Fired) {
		problems = append(problems, fmt.Sprintf("lost %d: %s", lost, s.stop.raw))
	}
	fired := s.stop.Read + lost // the storm's; fired in the record is the whole host's
	problems = append(problems, miscount("transitions, with those lost", fired, happened)...)
	told := timeWaits{
		begun:      s.count("FIN_WAIT2 > TIME_WAIT", "CLOSING > TIME_WAIT"),
		overflowed: s.count("FIN_WAIT2 > CLOSE") + s.kinds["CLOSING > CLOSE"], // not those reset in CLOSING
	}
	hidden := int64(happened - fired)
	noACKs := int64(s.count("ESTABLISHED > FIN_WAIT1") - s.count("FIN_WAIT1 > CLOSING", "FIN_WAIT1 > FIN_WAIT2"))
	noEnds := int64(kernel.begun + kernel.overflowed - told.begun - told.overflowed)
	missing := noACKs + noEnds
	if told.begun > kernel.begun || told.overflowed > kernel.overflowed || noEnds > hidden+int64(lost) ||
		lost == 0 && (missing != hidden || noACKs < noEnds) {
		problems = append(problems, fmt.Sprintf("TIME_WAITs told %+v, by the kernel's count %+v; %d times no FIN_WAIT2, %d hidden and %d lost transitions",
			told, kernel, noACKs, hidden, lost))
	}
	return problems
}

// mayLose is how many of the transitions that fired may be lost, all of them
// counted: none, but where the kernel preempts a program in favour of another task,
// so that an event may meet both busy.
func mayLose(t *testing.T, fired uint64) uint64 {
	if row, known := thisKernel(t); known && row.PreemptsPrograms {
		return fired / 200
	}
	return 0
}

// timeWaits are how many connections left a TIME_WAIT, and how many did not for lack
// of room.
type timeWaits struct {
	begun, overflowed uint64
}

// timeWaitCounts is the namespace's own count: TcpExt TW, and TWKilled for those that
// last no more than four seconds, count at entry since 6.1, and before at the end:
// there, those that live count too.
func timeWaitCounts(t *testing.T, n *lab.Netns) timeWaits {
	t.Helper()
	ext := func(name string) uint64 { return netCounter(t, n, "netstat", "TcpExt:", name) }
	counts := timeWaits{ext("TW") + ext("TWKilled"), ext("TCPTimeWaitOverflow")}
	if isBefore(t, 6, 1) {
		counts.begun += netCounter(t, n, "sockstat", "TCP:", "tw")
	}
	return counts
}

// netCounter finds a value in a file of /proc/net: on the line of a group right
// after its name, or, where the names have a line of their own, below it.
func netCounter(t *testing.T, n *lab.Netns, file, group, name string) uint64 {
	t.Helper()
	var text string
	n.Do(func() { text = readThreadFile(t, "net/"+file) })
	var lines [][]string
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); fields[0] == group {
			lines = append(lines, fields)
		}
	}
	if len(lines) > 0 {
		if i := slices.Index(lines[0], name); i > 0 {
			value := lines[len(lines)-1][i+2-len(lines)]
			count, err := strconv.ParseUint(value, 10, 64)
			if err != nil {
				t.Fatalf("read /proc/net/%s: %v", file, err)
			}
			return count
		}
	}
	t.Fatalf("no %s %s in /proc/net/%s", group, name, file)
	return 0
}
