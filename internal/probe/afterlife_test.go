package probe

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/tcpshift/tcpshift/internal/bpfobj"
	"github.com/tcpshift/tcpshift/internal/decode"
	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/tcp"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// Where the release of a timewait socket was missed, the next one of the same memory is
// somebody else's, who may be watched or not.
func TestAnEndThatNobodySawIsNotToldWithTheNextOneInTheSameMemory(t *testing.T) {
	tcplab.RequireRoot(t)
	const missed, next = 200, 600
	for _, traced := range []bool{true, false} {
		t.Run(fmt.Sprintf("the next one is traced: %v", traced), func(t *testing.T) {
			n, other := tcplab.NewNetns(t), tcplab.NewNetns(t)
			p := openWithEnds(t, n)
			leaveTimeWaits(n, missed)
			p.missReleases(t, func() { endTimeWaits(n, missed) })
			p.mustTellEnds(t, 0)
			told := next
			if !traced {
				n, told = other, 0
			}
			leaveTimeWaits(n, next)
			endTimeWaits(n, next)
			p.mustTellEnds(t, told)
			untold := p.endsUntold(t)
			t.Logf("of %d that were missed %d came to light", missed, untold)
			if untold == 0 || untold > missed {
				t.Errorf("%d ends are counted as untold; %d were missed", untold, missed)
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
		t.Skip("this kernel does not show the ends of TIME_WAITs")
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

// missReleases has the programs that watch for releases see nothing of what f does.
func (p *Probe) missReleases(t *testing.T, f func()) {
	t.Helper()
	missing := []string{bpfobj.ProbeProgObjectFreedPrimary, bpfobj.ProbeProgObjectFreedBackup}
	var kept []attachment
	for _, l := range p.links {
		if l.program != missing[0] && l.program != missing[1] {
			kept = append(kept, l)
		} else if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	p.links = kept
	waitForReaders()
	f()
	for _, name := range missing {
		l, err := attachTracing(p.collection.Programs[name])
		if err != nil {
			t.Fatal(err)
		}
		p.links = append(p.links, attachment{l, name})
	}
}

// mustTellEnds reads what there is.
func (p *Probe) mustTellEnds(t *testing.T, want int) {
	t.Helper()
	var e decode.Event
	ends := 0
	err := p.Read(0, func(sample []byte) error {
		if err := decode.Sample(sample, &e); err != nil {
			return err
		}
		if e.Kind != decode.Cgroup && e.Transition.Old == tcp.TimeWait {
			ends++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if ends != want {
		t.Errorf("%d ends of TIME_WAITs told, want %d", ends, want)
	}
}

func (p *Probe) endsUntold(t *testing.T) uint64 {
	t.Helper()
	c, err := p.Counters()
	if err != nil {
		t.Fatal(err)
	}
	return c.Primary.TimeWaitEndsLost + c.Backup.TimeWaitEndsLost
}
