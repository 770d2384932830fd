package kernel_test

import (
	"os"
	"testing"

	"github.com/tcpshift/tcpshift/internal/decode"
	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/tcp"
	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// A process that takes a shorter name still matches a filter on its name: the filter compares
// all bytes of the name, also those behind its end.
func TestFilter_ShorterComm(t *testing.T) {
	harness.RequireFeature(t, probe.SocketStorage) // else no earlier name is kept
	harness.RequireFeature(t, probe.SocketCookie)
	const path, short = "/proc/self/comm", "sh"
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rename := func(name string) {
		if err := os.WriteFile(path, []byte(name), 0); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { rename(string(before)) })
	n := tcplab.NewNetns(t)
	p := openProbe(t, filter.Filter{Netns: []uint32{n.Inode()}, Comms: []string{short}})
	rename("a-longer-name")
	listener := n.Listen(tcplab.V4.At(7001))
	client := n.Dial(tcplab.V4.At(7001))
	child := listener.Accept()
	cookie := client.Cookie()
	rename(short)
	client.Close()
	var named []tcp.Transition
	err = p.ReadFor(0, func(sample []byte) error {
		var e decode.Event
		err := decode.Sample(sample, &e)
		if e.Kind == decode.KindTransition && e.Transition.Cookie == cookie {
			named = append(named, e.Transition)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(named) == 0 || string(named[0].Owner.Comm.Bytes()) != short {
		t.Errorf("the events with the name %q are %+v, want the one of close()", short, named)
	}
	child.Close()
}

func openProbe(t *testing.T, f filter.Filter) *probe.Probe {
	t.Helper()
	p, err := probe.Open(probe.Options{Filter: f})
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
