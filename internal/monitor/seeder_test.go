package monitor

import (
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/boottime"
	"github.com/tcpshift/tcpshift/internal/limits"
	"github.com/tcpshift/tcpshift/internal/netns"
	"github.com/tcpshift/tcpshift/internal/tcp"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// loopback is where all sockets of these tests are.
var loopback = netip.AddrPortFrom(tcplab.V4.Loopback(), 0)

// seededNetns are network namespaces with a listener each, some of them with a connection, too.
type seededNetns struct {
	made      []*tcplab.Netns
	connected map[uint32]bool
}

func newSeededNetns(t testing.TB, count, connected int) seededNetns {
	s := seededNetns{connected: make(map[uint32]bool)}
	for i := range count {
		n := tcplab.NewNetns(t)
		l := n.Listen(loopback)
		if i < connected {
			n.Dial(l.Addr())
			l.Accept()
			s.connected[n.Inode()] = true
		}
		s.made = append(s.made, n)
	}
	return s
}

// namespace says where a namespace is found: at the thread that lives in it.
func namespace(n *tcplab.Netns) (found netns.Namespace) {
	n.Do(func() {
		found = netns.Namespace{Inode: n.Inode(), Path: fmt.Sprintf("/proc/%d/task/%d/ns/net", unix.Getpid(), unix.Gettid())}
	})
	return found
}

// seed runs a seeder over the namespaces. walks is how often it has read bound ports, which walks the
// kernel's table of connections, as reading the connections does.
func (s seededNetns) seed(t testing.TB) (walks int, updates []update) {
	queue := make(chan update, 4*len(s.made))
	r := seeder{hostReader: hostReader{updates: queue, done: make(chan struct{}), warn: func(m string) { t.Error(m) }, bound: make(map[uint32]boundPorts)}}
	r.readBound = func() (*tcp.PortSet, error) {
		walks++
		return limits.ReadBoundPorts()
	}
	for _, n := range s.made {
		if !r.seedFrom(namespace(n)) {
			t.Error("seeding ends early")
		}
	}
	close(queue)
	for u := range queue {
		updates = append(updates, u)
	}
	return walks, updates
}

// Only namespaces with connections or timewait sockets cost a walk of the kernel's table, which has
// the sockets of all namespaces: one with listeners, or with nothing, costs none. What is there is
// sent all the same.
func TestSeeder_WalksOnlyForConnections(t *testing.T) {
	const connected = 2
	for _, count := range []int{4, 16} {
		s := newSeededNetns(t, count, connected)
		s.made = append(s.made, tcplab.NewNetns(t))
		walks, updates := s.seed(t)
		if walks != connected {
			t.Errorf("%d namespaces: %d walks, want %d: one for each with a connection", count, walks, connected)
		}
		if want := count + connected; len(updates) != want {
			t.Errorf("%d namespaces: %d updates, want %d: the listeners of each, and the connections of %d", count, len(updates), want, connected)
		}
	}
}

// A namespace whose only connection is in TIME_WAIT is walked: the timewait socket counts.
func TestSeeder_OnlyTimeWait(t *testing.T) {
	s := newSeededNetns(t, 1, 0)
	n := s.made[0]
	l := n.Listen(loopback)
	l.ClientTimeWait(tcplab.V4.At(tcplab.FreshPort()))
	n.Settle(2)
	walks, updates := s.seed(t)
	if walks != 1 || len(updates) != 2 {
		t.Errorf("%d walks and %d updates, want one, and two: the timewait socket and the listeners", walks, len(updates))
	}
}

// BenchmarkSeeder reports the time for each namespace, and growth: how many times as long a namespace
// takes where there are four times as many. It is 1 if the whole grows in proportion.
func BenchmarkSeeder(b *testing.B) {
	for _, connected := range []bool{false, true} {
		b.Run(fmt.Sprintf("connected=%v", connected), func(b *testing.B) {
			var each [2]float64
			for i, count := range []int{100, 400} {
				s := newSeededNetns(b, count, map[bool]int{true: count}[connected])
				began := boottime.Now()
				for range b.N {
					s.seed(b)
				}
				each[i] = float64(boottime.Now()-began) / float64(b.N*count)
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(each[1], "ns/namespace")
			b.ReportMetric(each[1]/each[0], "growth")
		})
	}
}
