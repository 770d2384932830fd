package kernel_test

import (
	"io"
	"os"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/decode"
	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/tcp"
	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// liveSocket is a socket that must have an update.
type liveSocket struct {
	*tcplab.Socket
	role           tcp.Role
	older          bool // than the tracer
	sent, received uint64
}

// walkUpdates walks over the connections of a namespace once, and returns the updates by cookie.
func walkUpdates(t *testing.T, n *tcplab.Netns, p *probe.Probe) map[uint64]decode.Event {
	t.Helper()
	var walk io.ReadCloser
	var err error
	n.Do(func() { walk, err = p.OpenUpdates() })
	if err != nil {
		t.Fatal(err)
	}
	defer walk.Close()
	if _, err := io.Copy(io.Discard, walk); err != nil {
		t.Fatal(err)
	}
	updates := make(map[uint64]decode.Event)
	err = p.ReadFor(0, func(sample []byte) error {
		var e decode.Event
		if err := decode.Sample(sample, &e); err != nil || e.Kind != decode.KindUpdate {
			return err
		}
		if _, twice := updates[e.Transition.Cookie]; twice {
			t.Errorf("two updates of a socket in one walk: %+v", e)
		}
		updates[e.Transition.Cookie] = e
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return updates
}

// A walk emits one update of each connection that lives, with its endpoints, owner and role, and what both ends have
// sent until then; it emits none of listeners and TIME_WAITs. What the verifier processes for it is within the limit.
func TestUpdates_Walk(t *testing.T) {
	harness.RequireFeature(t, probe.LiveUpdates)
	n := tcplab.NewNetns(t)
	var live []*liveSocket
	connect := func(family tcplab.Family, port uint16, older bool) {
		listener := n.Listen(family.At(port))
		client := n.Dial(family.At(port))
		c, s := &liveSocket{Socket: client, role: tcp.RoleClient, older: older}, &liveSocket{Socket: listener.Accept(), role: tcp.RoleServer, older: older}
		live = append(live, c, s)
	}
	connect(tcplab.V4, 80, true)
	p, err := probe.Open(probe.Options{Filter: filter.Filter{Netns: []uint32{n.Inode()}}, Ends: true, UpdatesFrom: time.Nanosecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	connect(tcplab.V4, 81, false)
	connect(tcplab.V6, 82, false)
	listener := n.Listen(tcplab.V4.At(83))
	closing := n.Dial(tcplab.V4.At(83))
	closed := listener.Accept()
	closing.Close()
	closed.ReadEOF()
	closed.Close()
	for range 2 {
		for i := 0; i < len(live); i += 2 {
			client, server := live[i], live[i+1]
			client.Write("hello")
			for left := 5; left > 0; left -= len(server.Read()) {
				continue
			}
			client.sent += 5
			server.received += 5
		}
		updates := walkUpdates(t, n, p)
		for _, s := range live {
			e, found := updates[s.Cookie()]
			u, c := &e.Transition, &e.Connection
			switch {
			case !found:
				t.Errorf("no update of %v", s.Addr())
			case u.Local.Addr != s.Addr().Addr() || u.Local.Port != s.Addr().Port() || u.Peer.Port != s.Peer().Port() || u.New != tcp.Established || u.Owner.PID != uint32(os.Getpid()):
				t.Errorf("the update of %v is %+v", s.Addr(), u)
			case c.Sent != s.sent || c.Received != s.received || c.Cwnd == 0:
				t.Errorf("the update of %v has %+v, want %d and %d bytes", s.Addr(), c, s.sent, s.received)
			case s.older != (c.OpenedAt == 0) || !s.older && u.Role != s.role:
				t.Errorf("the update of %v has role %v and %+v", s.Addr(), u.Role, c)
			}
		}
		if len(updates) != len(live) {
			t.Errorf("%d updates of %d connections", len(updates), len(live))
		}
	}
	harness.CheckInstructions(t, &harness.Tracer{Probe: p})
}
