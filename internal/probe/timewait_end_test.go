package probe

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/tcpshift/tcpshift/internal/decode"
	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/tcp"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// If the release of a timewait socket was missed, the next timewait socket at its address
// is another socket's, which may be tracked or not. Neither may be taken for the end of
// the first one.
func TestTimeWaitEnd_MissedRelease(t *testing.T) {
	tcplab.RequireRoot(t)
	const missed, next = 200, 600
	for _, traced := range []bool{true, false} {
		t.Run(fmt.Sprintf("the next one is traced: %v", traced), func(t *testing.T) {
			n, other := tcplab.NewNetns(t), tcplab.NewNetns(t)
			p := openWithEnds(t, n)
			leaveTimeWaits(n, missed)
			p.miss(t, objectFreedChain, func() { endTimeWaits(n, missed) })
			p.checkEmittedEnds(t, 0)
			want := next
			if !traced {
				n, want = other, 0
			}
			leaveTimeWaits(n, next)
			endTimeWaits(n, next)
			p.checkEmittedEnds(t, want)
			lost := p.lostEnds(t)
			t.Logf("of %d that were missed %d are counted as lost", missed, lost)
			if lost == 0 || lost > missed {
				t.Errorf("%d ends are counted as lost; %d were missed", lost, missed)
			}
		})
	}
}

func openWithEnds(t *testing.T, n *tcplab.Netns) *Probe {
	t.Helper()
	p, err := Open(Options{TimeWaitEnds: true, Filter: filter.Filter{Netns: []uint32{n.Inode()}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	if !p.features.has(TimeWaitEnds) {
		t.Skip("this kernel does not have the tracepoints for the ends of TIME_WAITs")
	}
	return p
}

const listenPort, firstPort = 7000, 20000

func leaveTimeWaits(n *tcplab.Netns, count int) {
	listener := n.Listen(tcplab.V4.At(listenPort), (*tcplab.Socket).ReuseAddr)
	defer listener.Close()
	for i := range count {
		listener.ServerTimeWait(netip.AddrPortFrom(tcplab.V4.Loopback(), uint16(firstPort+i)))
	}
}

func endTimeWaits(n *tcplab.Netns, count int) {
	listener := n.Listen(tcplab.V4.At(listenPort), (*tcplab.Socket).ReuseAddr)
	defer listener.Close()
	for i := range count {
		listener.Supersede(netip.AddrPortFrom(tcplab.V4.Loopback(), uint16(firstPort+i)))
	}
}

// miss runs f while the programs of a tracepoint are detached.
func (p *Probe) miss(t *testing.T, programs chain, f func()) {
	t.Helper()
	detached := slices.DeleteFunc(slices.Clone(programs[:]), func(name string) bool { return p.collection.Programs[name] == nil })
	p.detachPrograms(t, detached)
	f()
	p.attachAgain(t, detached)
}

// checkEmittedEnds reads all events and checks the number of ends of TIME_WAITs.
func (p *Probe) checkEmittedEnds(t *testing.T, want int) {
	t.Helper()
	var e decode.Event
	ends := 0
	err := p.ReadFor(0, func(sample []byte) error {
		if err := decode.Sample(sample, &e); err != nil {
			return err
		}
		if e.Kind != decode.KindCgroup && e.Transition.Old == tcp.TimeWait {
			ends++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if ends != want {
		t.Errorf("%d ends of TIME_WAITs emitted, want %d", ends, want)
	}
}

func (p *Probe) lostEnds(t *testing.T) uint64 {
	t.Helper()
	c, err := p.Counters()
	if err != nil {
		t.Fatal(err)
	}
	return c.Sum().TimeWaitEndsLost
}
