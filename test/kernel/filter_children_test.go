package kernel_test

import (
	"testing"

	"github.com/tcpshift/tcpshift/internal/decode"
	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/tcp"
	"github.com/tcpshift/tcpshift/test/kernel/harness"
)

// The filter on children passes the sockets of a child and of its child, also those that the kernel closes
// when such a process exits, and no socket of a process that started before the programs were attached.
func TestFilter_Children(t *testing.T) {
	env := harness.NewEnv(t)
	outsider := env.StartProgram("outsider", 1)
	p := openProbe(t, filter.Filter{Netns: []uint32{env.Netns.Inode()}, Children: true})
	child := env.StartProgram("child", 1)
	grandchild := child.Fork("grandchild", 0, 0)
	listener := outsider.Listen(harness.At(7000))
	for _, a := range []*harness.Actor{child, grandchild, outsider} {
		a.Dial(harness.At(7000))
		outsider.Accept(listener)
	}
	grandchild.Exit()
	child.Exit()
	type transition struct {
		pid      uint32
		old, new tcp.State
	}
	seen := make(map[transition]bool)
	err := p.ReadFor(0, func(sample []byte) error {
		var e decode.Event
		err := decode.Sample(sample, &e)
		if t := &e.Transition; e.Kind == decode.KindTransition {
			seen[transition{t.Owner.KnownPID(), t.Old, t.New}] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []*harness.Actor{child, grandchild} {
		for _, want := range []transition{
			{uint32(a.PID), tcp.Close, tcp.SynSent}, {uint32(a.PID), tcp.Established, tcp.FinWait1},
		} {
			if !seen[want] {
				t.Errorf("%s: no transition from %v to %v", a.Name(), want.old, want.new)
			}
		}
	}
	for got := range seen {
		if got.pid != uint32(child.PID) && got.pid != uint32(grandchild.PID) {
			t.Errorf("a transition of the process %d: %v to %v", got.pid, got.old, got.new)
		}
	}
	if count, err := p.Unfollowed(); err != nil || count != 0 {
		t.Errorf("%d processes were not followed, error %v", count, err)
	}
}
