package probe

import (
	"os"
	"testing"

	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// A process that takes a shorter name still matches a filter on its name: the filter compares
// all bytes of the name, also those behind its end.
func TestFilter_ShorterComm(t *testing.T) {
	tcplab.RequireRoot(t)
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
	p := openWith(t, filter.Filter{Netns: []uint32{n.Inode()}, Comms: []string{short}}, false)
	if !p.features.has(SocketStorage) || !p.features.has(SocketCookie) {
		t.Skip("this kernel has no socket storage: no earlier name is kept")
	}
	rename("a-longer-name")
	listener := n.Listen(tcplab.V4.At(listenPort))
	client := n.Dial(tcplab.V4.At(listenPort))
	child := listener.Accept()
	cookie := client.Cookie()
	rename(short)
	client.Close()
	if events := p.eventsOf(t, cookie); len(events) == 0 || string(events[0].Transition.Owner.Comm.Bytes()) != short {
		t.Errorf("the events with the name %q are %+v, want the one of close()", short, events)
	}
	child.Close()
}
