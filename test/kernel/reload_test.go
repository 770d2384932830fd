package kernel_test

import (
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"

	"github.com/tcpshift/tcpshift/internal/decode"
	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/tcp"
	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// reloadPort passes all filters of the test below, reloadOther only some.
const reloadPort, reloadOther = 17201, 17202

// While connections come and go, the filter on ports changes between one port and two. All transitions of the first
// port are emitted, each once and in an unbroken chain of states; those of the second one only while its filter is in
// use. Every firing is accounted for.
func TestReload_EachEventOnce(t *testing.T) {
	tcplab.RequireRoot(t)
	three := true
	chains := map[string]*bool{"as this kernel needs": nil}
	if row, known := harness.ThisKernel(t); !known || !harness.HasThirdProgram(row) {
		chains["three programs"] = &three
	}
	for name, preempted := range chains {
		t.Run(name, func(t *testing.T) {
			n := tcplab.NewNetns(t)
			one := filter.Filter{Netns: []uint32{n.Inode()}, Ports: portRanges(reloadPort)}
			both := filter.Filter{Netns: one.Netns, Ports: portRanges(reloadPort, reloadOther)}
			p, err := probe.Open(probe.Options{Filter: one, Reloadable: true, MayBePreempted: preempted})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			s := newReloadStorm(t, n)
			log := &eventLog{seen: make(map[uint64]tcp.State)}
			for range 2 {
				log.replace(t, p, both, 2)
				log.replace(t, p, one, 1)
			}
			s.end(t)
			if err := p.Detach(); err != nil {
				t.Fatal(err)
			}
			log.read(t, p, 1)
			c, err := p.Counters()
			if err != nil {
				t.Fatal(err)
			}
			sum := c.Sum()
			settled := sum.OtherProtocol + sum.Filtered + sum.Emitted + sum.Deferred - sum.Resumed
			if fired := c[0].Fired(); sum.RingFull+sum.RingBusy > 0 || fired != settled {
				t.Errorf("%d firings, %d settled: %+v", fired, settled, sum)
			}
			if log.first < 300 || log.second < 20 {
				t.Errorf("%d and %d transitions of the two ports: too few", log.first, log.second)
			}
			t.Logf("%d and %d transitions of the two ports", log.first, log.second)
		})
	}
}

func portRanges(numbers ...uint16) (ranges []filter.PortRange) {
	for _, p := range numbers {
		ranges = append(ranges, filter.PortRange{First: p, Last: p})
	}
	return ranges
}

// eventLog checks the events of the first port, and counts those of both.
type eventLog struct {
	seen          map[uint64]tcp.State // the last state of a socket of the first port
	first, second int
}

// replace makes a filter the one in use, and reads what was emitted before. Then only so many ports have events.
func (l *eventLog) replace(t *testing.T, p *probe.Probe, f filter.Filter, count int) {
	t.Helper()
	next, err := p.Prepare(f, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	l.read(t, p, 2)
	if err := p.Replace(next); err != nil {
		t.Fatal(err)
	}
	if err := p.FindOwners(); err != nil {
		t.Error(err)
	}
	l.read(t, p, 2)
	for before := l.first; l.first < before+100; {
		l.read(t, p, count)
	}
}

// read reads the events that are in the rings. All are of the first count ports.
func (l *eventLog) read(t *testing.T, p *probe.Probe, count int) {
	t.Helper()
	err := p.ReadFor(0, func(sample []byte) error {
		var e decode.Event
		if err := decode.Sample(sample, &e); err != nil || e.Kind != decode.KindTransition {
			return err
		}
		tr := &e.Transition
		if tr.Local.Port != reloadPort && tr.Peer.Port != reloadPort {
			if l.second++; count == 1 {
				t.Errorf("socket %x: %v -> %v of a port that the filter in use leaves out", tr.Cookie, tr.Old, tr.New)
			}
			return nil
		}
		l.first++
		before, known := l.seen[tr.Cookie]
		if tr.Cookie == 0 { // 5.10 has none
			return nil
		}
		if known && before != tr.Old || !known && tr.Old != tcp.Close && tr.Old != tcp.Listen {
			t.Errorf("socket %x: %v -> %v after %v (known: %v)", tr.Cookie, tr.Old, tr.New, before, known)
		}
		l.seen[tr.Cookie] = tr.New
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// reloadStorm are short connections to both ports, one after the other, from two threads.
type reloadStorm struct {
	ended atomic.Bool
	done  chan error
}

func newReloadStorm(t *testing.T, n *tcplab.Netns) *reloadStorm {
	t.Helper()
	var listeners []net.Listener
	n.Do(func() {
		for _, port := range []uint16{reloadPort, reloadOther} {
			l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
			if err != nil {
				t.Error(err)
				continue
			}
			listeners = append(listeners, l)
			go acceptAndClose(l)
		}
	})
	s := &reloadStorm{done: make(chan error, 1)}
	go func() {
		var errs []error
		n.Threads(2, func(int) error {
			for i := 0; !s.ended.Load(); i++ {
				c, err := net.Dial("tcp4", listeners[i%2].Addr().String())
				if err != nil {
					return err
				}
				_ = c.(*net.TCPConn).SetLinger(0) // no TIME_WAIT, so there are always ports
				_ = c.Close()
			}
			return nil
		})
		for _, l := range listeners {
			errs = append(errs, l.Close())
		}
		s.done <- errors.Join(errs...)
	}()
	return s
}

func acceptAndClose(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_ = c.Close()
	}
}

func (s *reloadStorm) end(t *testing.T) {
	t.Helper()
	s.ended.Store(true)
	if err := <-s.done; err != nil {
		t.Fatal(err)
	}
}
