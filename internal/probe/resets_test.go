package probe

import (
	"fmt"
	"slices"
	"testing"

	"github.com/tcpshift/tcpshift/internal/decode"
	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// A chain of programs emits the event of each reset once, and a program that misses it is
// replaced by any program behind it.
func TestResets_ChainEmitsOnce(t *testing.T) {
	tcplab.RequireRoot(t)
	const resets = 50
	for _, preempted := range []bool{false, true} {
		for missing := range chainLength(preempted) {
			t.Run(fmt.Sprintf("%d programs, without the first %d", chainLength(preempted), missing), func(t *testing.T) {
				n := tcplab.NewNetns(t)
				p := openWith(t, filter.Filter{Netns: []uint32{n.Inode()}}, preempted)
				if !p.features.has(ResetSent) {
					t.Skip("this kernel does not have the tracepoint tcp_send_reset")
				}
				p.detachPrograms(t, resetSentChain[:missing])
				listener := n.Listen(tcplab.V4.At(listenPort))
				for range resets {
					c := n.Dial(tcplab.V4.At(listenPort))
					child := listener.Accept()
					c.SetLinger(0)
					c.Close()
					child.Close()
				}
				if got := p.countResets(t); got != resets {
					t.Errorf("%d events of resets, want %d", got, resets)
				}
			})
		}
	}
}

func (p *Probe) detachPrograms(t *testing.T, names []string) {
	t.Helper()
	var kept []attachment
	for _, l := range p.links {
		if !slices.Contains(names, l.program) {
			kept = append(kept, l)
		} else if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	p.links = kept
	waitForReaders()
}

// attachAgain attaches detached programs, which the kernel then calls last.
func (p *Probe) attachAgain(t *testing.T, names []string) {
	t.Helper()
	for _, name := range names {
		l, err := attachTracing(p.collection.Programs[name])
		if err != nil {
			t.Fatal(err)
		}
		p.links = append(p.links, attachment{l, name})
	}
}

func (p *Probe) countResets(t *testing.T) (resets int) {
	t.Helper()
	var e decode.Event
	err := p.ReadFor(0, func(sample []byte) error {
		if err := decode.Sample(sample, &e); err != nil {
			return err
		}
		if e.Kind == decode.KindLateReset {
			resets++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return resets
}
