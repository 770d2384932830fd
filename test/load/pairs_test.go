package load_test

import (
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// A pair is the two states of a transition as records name them.
type pair struct{ from, to string }

// pairCounts are numbers of transitions by pair.
type pairCounts map[pair]uint64

func (c pairCounts) sum() (total uint64) {
	for _, n := range c {
		total += n
	}
	return total
}

// The kernel names the second CLOSE. All connections of a soak end in TIME_WAIT.
var toFinWait2, toTimeWait = pair{"FIN_WAIT1", "FIN_WAIT2"}, pair{"FIN_WAIT2", "TIME_WAIT"}

// stormPairs returns the transitions that storms of the ends ClientFirst, ServerFirst and
// HalfClosed make. See tcplab.Storm.
func stormPairs(connections, storms uint64) pairCounts {
	const workers = 2
	return pairCounts{
		{"CLOSE", "LISTEN"}: workers * storms, {"LISTEN", "CLOSE"}: workers * storms,
		{"CLOSE", "SYN_SENT"}: connections, {"SYN_SENT", "ESTABLISHED"}: connections,
		{"LISTEN", "SYN_RECV"}: connections, {"SYN_RECV", "ESTABLISHED"}: connections,
		{"ESTABLISHED", "FIN_WAIT1"}: connections, toFinWait2: connections, toTimeWait: connections,
		{"ESTABLISHED", "CLOSE_WAIT"}: connections, {"CLOSE_WAIT", "LAST_ACK"}: connections, {"LAST_ACK", "CLOSE"}: connections,
	}
}

// timeWaits returns the namespace's own count of TIME_WAITs. Since Linux 6.1 it includes
// those that last.
func timeWaits(t *testing.T, n *tcplab.Netns) uint64 {
	t.Helper()
	var text []byte
	var err error
	n.Do(func() { text, err = os.ReadFile("/proc/thread-self/net/netstat") })
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	names, values := strings.Fields(lines[0]), strings.Fields(lines[1])
	count, err := strconv.ParseUint(values[slices.Index(names, "TW")], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return count
}

// firings are the calls of an observer's program.
type firings struct {
	pairCounts        // of its namespace
	missed     uint64 // of any namespace: the program was running already
}

// leastMissed stops the observers and returns the counts of the one that missed least. A
// softirq interrupts one program at a time, so that one of three mostly misses nothing.
func leastMissed(t *testing.T, observers []*observer) (best firings) {
	t.Helper()
	for i, o := range observers {
		f, err := o.stop()
		if err != nil {
			t.Fatalf("the observer's counts: %v", err)
		}
		if i == 0 || f.missed < best.missed {
			best = f
		}
	}
	return best
}

// checkMade checks that the kernel called the program once for each transition that the
// connections made. Some kernels never do so for a few of two pairs, although they have
// counted each TIME_WAIT: see docs/accuracy.md.
func (f firings) checkMade(t *testing.T, n *tcplab.Netns, made pairCounts) {
	t.Helper()
	hides := tcplab.HidesEvents()
	if hides && timeWaits(t, n) != made[toTimeWait] {
		t.Errorf("the kernel counted %d TIME_WAITs, the connections made %d", timeWaits(t, n), made[toTimeWait])
	}
	for p := range union(f.pairCounts, made) {
		hidden := hides && (p == toFinWait2 || p == toTimeWait)
		if got, want := f.pairCounts[p], made[p]; got > want || got+f.missed < want && !hidden {
			t.Errorf("the kernel called a program for %d transitions %v, and %d of any kind met it running; the connections made %d", got, p, f.missed, want)
		}
	}
}

// checkRecords checks that the stream has each transition for which the kernel called a
// program, and no other. If neither side missed or lost one, the counts are equal.
func (f firings) checkRecords(t *testing.T, c *tally) {
	t.Helper()
	lost := c.stop.lost() + c.stop.Dropped + c.stop.LostQueueFull
	for p := range union(f.pairCounts, c.transitions) {
		if got, want := c.transitions[p], f.pairCounts[p]; got > want+f.missed || got+lost < want {
			t.Errorf("records of %d transitions %v, and %d lost of any kind; the kernel called another program for %d, which missed %d of any kind", got, p, lost, want, f.missed)
		}
	}
	if got, want := c.transitions.sum(), f.sum(); got > want+f.missed || got+lost < want {
		t.Errorf("records of %d transitions, and %d lost; the kernel called another program for %d, which missed %d", got, lost, want, f.missed)
	}
}

func union(a, b pairCounts) pairCounts {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}
