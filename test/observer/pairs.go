package observer

import (
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// A Pair is the two states of a transition as records name them.
type Pair struct{ From, To string }

// Counts are numbers of transitions by pair.
type Counts map[Pair]uint64

// Sum is the number of all transitions.
func (c Counts) Sum() (total uint64) {
	for _, n := range c {
		total += n
	}
	return total
}

// The kernel names the second CLOSE. All connections of a soak end in TIME_WAIT.
var toFinWait2, toTimeWait = Pair{"FIN_WAIT1", "FIN_WAIT2"}, Pair{"FIN_WAIT2", "TIME_WAIT"}

// OfStorms returns the transitions of so many storms with the default number of workers, and of
// their connections, all storms together. Each storm must have the end ClientFirst, ServerFirst or
// HalfClosed. See tcplab.Storm.
func OfStorms(connections, storms uint64) Counts {
	const workers = 2
	return Counts{
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

// Calls are the calls of an observer's program.
type Calls struct {
	Counts        // of its namespace, or of all
	Missed uint64 // of any namespace: the program was running already
}

// CheckMade checks that the kernel called the program once for each transition that the
// connections made. Some kernels never do so for a few of two pairs, although they have
// counted each TIME_WAIT: see docs/accuracy.md.
func (c Calls) CheckMade(t *testing.T, n *tcplab.Netns, made Counts) {
	t.Helper()
	hides := tcplab.HidesEvents()
	if hides && timeWaits(t, n) != made[toTimeWait] {
		t.Errorf("the kernel counted %d TIME_WAITs, the connections made %d", timeWaits(t, n), made[toTimeWait])
	}
	for p := range Union(c.Counts, made) {
		hidden := hides && (p == toFinWait2 || p == toTimeWait)
		if got, want := c.Counts[p], made[p]; got > want || got+c.Missed < want && !hidden {
			t.Errorf("the kernel called a program for %d transitions %v, and %d of any kind met it running; the connections made %d", got, p, c.Missed, want)
		}
	}
}

// passThrough are the states in which no closed socket remains. LISTEN and CLOSE are not in the
// list: many sockets leave LISTEN for one that enters it.
var passThrough = [...]string{
	"SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT1", "FIN_WAIT2", "CLOSE_WAIT", "LAST_ACK", "CLOSING",
}

// Since returns the calls after earlier ones of the same namespace.
func (c Calls) Since(earlier Calls) Calls {
	c.Counts = maps.Clone(c.Counts)
	for p, n := range earlier.Counts {
		if c.Counts[p] -= n; c.Counts[p] == 0 {
			delete(c.Counts, p)
		}
	}
	return c
}

// Unbalanced returns a state that sockets entered more or less often than they left it, or "".
// After the end of all sockets of a namespace there is none, unless the kernel called no program
// for a transition.
func (c Calls) Unbalanced() string {
	for _, s := range passThrough {
		var entered, left uint64
		for p, n := range c.Counts {
			if p.From == s {
				left += n
			}
			if p.To == s {
				entered += n
			}
		}
		if entered != left {
			return s
		}
	}
	return ""
}

// Hidden bounds the number of transitions for which the kernel called no program, of made
// transitions in all. It is 0 on kernels that hide none.
func (c Calls) Hidden(made uint64) uint64 {
	if !tcplab.HidesEvents() {
		return 0
	}
	return made - min(made, c.Sum())
}

// Union has the pairs of both. A pair that both have is not added up: it has the number of b.
func Union(a, b Counts) Counts {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}
