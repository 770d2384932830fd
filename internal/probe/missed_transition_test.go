package probe

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/decode"
	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/tcp"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// The first transitions of a child are missed, so no program has seen that its state is a
// copy of its listener's. The child has nothing of the listener in its later events: no
// role, no times, and no owner that is called its own.
func TestOwner_MissedFirstTransition(t *testing.T) {
	tcplab.RequireRoot(t)
	for name, without := range map[string][]string{
		"with every feature": nil, "without accept_hook": {AcceptHook}, "without accept_hook and read_hook": {AcceptHook, ReadHook},
	} {
		t.Run(name, func(t *testing.T) {
			n := tcplab.NewNetns(t)
			p := openForMisses(t, n, without)
			listener := n.Listen(tcplab.V4.At(listenPort))
			defer listener.Close()
			time.Sleep(50 * time.Millisecond) // so that no time of the listener is one of its child
			var client *tcplab.Socket
			missed := time.Now()
			p.miss(t, transitionChain, func() { client = n.Dial(tcplab.V4.At(listenPort)) })
			child := listener.Accept()
			cookie := child.Cookie()
			client.Write("x")
			child.Read()
			client.Shutdown(unix.SHUT_WR)
			child.Await(tcplab.CloseWait)
			child.Close()
			client.Close()
			n.Settle(1)
			events := p.eventsOf(t, cookie)
			if len(events) != 3 {
				t.Fatalf("%d events of the child, want the transitions to CLOSE_WAIT, LAST_ACK and CLOSE", len(events))
			}
			checkMissed(t, p, events, time.Since(missed))
		})
	}
}

func openForMisses(t *testing.T, n *tcplab.Netns, without []string) *Probe {
	t.Helper()
	p, err := Open(Options{Ends: true, Filter: filter.Filter{Netns: []uint32{n.Inode()}}, Without: without})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	if !p.features.has(SocketStorage) || !p.features.has(SocketCookie) {
		t.Skip("this kernel has no socket storage: a child inherits nothing")
	}
	return p
}

// checkMissed checks all events after the child's creation: CLOSE_WAIT by its peer,
// LAST_ACK by this process, and CLOSE by the peer's ACK, which close() mostly handles itself.
func checkMissed(t *testing.T, p *Probe, events []decode.Event, limit time.Duration) {
	t.Helper()
	sources := []tcp.PIDSource{tcp.PIDListener, tcp.PIDTask, tcp.PIDStored}
	if p.features.has(AcceptHook) {
		sources[0] = tcp.PIDAccept
	} else if p.features.has(ReadHook) {
		sources[0] = tcp.PIDRead
	}
	for i := range events {
		tr := &events[i].Transition
		if tr.Role != tcp.RoleServer {
			t.Errorf("%v -> %v: role %v, want server", tr.Old, tr.New, tr.Role)
		}
		if i == 0 && tr.InState != 0 || tr.InState > limit {
			t.Errorf("%v -> %v: %v in the old state, but its begin was missed, or not as long ago", tr.Old, tr.New, tr.InState)
		}
		if tr.Owner.Source != sources[i] && (i < 2 || tr.Owner.Source != tcp.PIDTask) {
			t.Errorf("%v -> %v: owner %d by %v, want by %v", tr.Old, tr.New, tr.Owner.PID, tr.Owner.Source, sources[i])
		}
	}
	if c := &events[len(events)-1].Connection; c.OpenedAt != 0 || c.EstablishedFor != 0 {
		t.Errorf("opened at %v, established for %v, but both were missed", c.OpenedAt, c.EstablishedFor)
	}
}

// eventsOf reads all events and returns the transitions of one socket.
func (p *Probe) eventsOf(t *testing.T, cookie uint64) (events []decode.Event) {
	t.Helper()
	err := p.ReadFor(0, func(sample []byte) error {
		var e decode.Event
		if err := decode.Sample(sample, &e); err != nil {
			return err
		}
		if (e.Kind == decode.KindTransition || e.Kind == decode.KindEnd) && e.Transition.Cookie == cookie {
			events = append(events, e)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return events
}
