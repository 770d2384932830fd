package probe

import (
	"fmt"
	"testing"

	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// A tracer leaves the events of an address family out, so its programs create no cookies
// for accepted sockets. The programs of a second tracer run between them and create the
// cookies. The backups of the first one still know the events that its primary program has
// handled.
func TestDedup_CookieOfAnotherTracer(t *testing.T) {
	tcplab.RequireRoot(t)
	for _, preempted := range []bool{false, true} {
		t.Run(fmt.Sprintf("%d programs", chainLength(preempted)), func(t *testing.T) {
			n := tcplab.NewNetns(t)
			backups := transitionChain[1:chainLength(preempted)]
			first := openWith(t, filter.Filter{Netns: []uint32{n.Inode()}, Family: 6}, preempted)
			first.detachPrograms(t, backups)
			openWith(t, filter.Filter{Netns: []uint32{n.Inode()}}, preempted)
			first.attachAgain(t, backups)
			before, err := first.Counters()
			if err != nil {
				t.Fatal(err)
			}

			listener := n.Listen(tcplab.V4.At(listenPort))
			for range 20 {
				c := n.Dial(tcplab.V4.At(listenPort))
				child := listener.Accept()
				c.Close()
				child.Close()
			}
			n.Settle(1)

			after, err := first.Counters()
			if err != nil {
				t.Fatal(err)
			}
			missed := after[0].Missed - before[0].Missed
			if handled := after[0].Filtered - before[0].Filtered; handled == 0 {
				t.Error("the primary program has handled no event")
			}
			for rank := range backups {
				if got := after[rank+1].Filtered - before[rank+1].Filtered; got > missed {
					t.Errorf("backup %d has handled %d events, and the primary program missed %d: %+v", rank+1, got, missed, after)
				}
			}
		})
	}
}

// openWith opens a probe until the test ends.
func openWith(t *testing.T, f filter.Filter, preempted bool) *Probe {
	t.Helper()
	p, err := Open(Options{Filter: f, MayBePreempted: &preempted})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}
