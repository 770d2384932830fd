package kernel_test

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// In every scenario and family, sent_bytes and received_bytes are the bytes that the
// processes wrote, and what came for them, read or not.
func TestConnection_BytesInEveryScenario(t *testing.T) {
	runs, records := harness.RunScenarios(t)
	for _, s := range runs {
		t.Run(fmt.Sprintf("%s %v", s.Name, s.Family), func(t *testing.T) {
			for _, lines := range records {
				ends := harness.OfType(s.Of(lines), "connection")
				for _, p := range s.Out.Endpoints() {
					written, arrived := p.Bytes()
					for _, l := range harness.ConnectionsOf(ends, p) {
						wantBytes(t, l, written, arrived)
					}
				}
			}
		})
	}
}

func wantBytes(t *testing.T, l harness.Record, sent, received uint64) {
	t.Helper()
	if l.Sent != sent || l.Received != received {
		t.Errorf("sent_bytes %d and received_bytes %d, want %d and %d: %s", l.Sent, l.Received, sent, received, l.Raw)
	}
}

// end returns the one connection record of a socket.
func end(t *testing.T, lines []harness.Record, cookie uint64) harness.Record {
	t.Helper()
	ends := harness.RecordsWith(lines, "connection", cookie)
	if len(ends) != 1 {
		t.Fatalf("%d connection records of %s, want one", len(ends), harness.ConnID(cookie))
	}
	return ends[0]
}

// Transmits that fail on this host count no byte again, and none that TCP did not send.
func TestConnection_BytesOverObstacle(t *testing.T) {
	harness.RequireFeature(t, probe.SocketStorage) // without the role, a SYN and a failed transmit look alike
	harness.SharedTracers(t)                       // load them before the cases run in parallel
	for _, o := range tcplab.Obstacles {
		for _, f := range tcplab.Families {
			for name, last := range map[string]func(*obstructed){
				"lifted": (*obstructed).liftAndClose, "FIN too": (*obstructed).finAndLift, "reset": (*obstructed).reset,
			} {
				t.Run(fmt.Sprintf("%s, %s %v", o.Name, name, f), func(t *testing.T) {
					t.Parallel()
					c := &obstructed{Obstacle: o, family: f}
					var cookie, childCookie uint64
					lines := harness.RecordsByCookie(t, func(n *tcplab.Netns) {
						c.open(n)
						cookie, childCookie = c.client.Cookie(), c.child.Cookie()
						c.obstruct()
						last(c)
					})
					wantBytes(t, end(t, lines, cookie), c.sent, 0)
					wantBytes(t, end(t, lines, childCookie), 0, c.arrived)
				})
			}
		}
	}
}

// obstructed is a connection whose client writes 1,000 bytes, and 1,000 more behind an
// obstacle.
type obstructed struct {
	tcplab.Obstacle
	family                  tcplab.Family
	n                       *tcplab.Netns
	listener, client, child *tcplab.Socket
	sent, arrived           uint64
}

const portion = 1000

// open connects, and sends the first portion, which the child reads.
func (c *obstructed) open(n *tcplab.Netns) {
	c.n = n
	at := c.family.At(7100)
	if c.family == tcplab.Mapped {
		at = c.family.Anywhere(7100)
	}
	c.listener = n.Listen(at)
	c.client = n.Dial(c.family.At(7100))
	c.child = c.listener.Accept()
	c.write()
	readAll(c.child, portion)
	c.client.AwaitInfo("ACK", func(i *unix.TCPInfo) bool { return i.Unacked == 0 })
}

func (c *obstructed) write() {
	c.client.Write(strings.Repeat("x", portion))
}

// obstruct sets the obstacle, writes a portion, and waits until TCP has tried to send it at
// least twice. A retransmission that finds no route fails before tcpi_bytes_sent counts it
// (__tcp_retransmit_skb()). A probe may be much smaller than the write: a route that has lost
// its device has the smallest MTU.
func (c *obstructed) obstruct() {
	c.Set(c.n)
	c.write()
	c.client.AwaitInfo("two failed transmits", func(i *unix.TCPInfo) bool {
		return i.Bytes_sent >= 3*portion || i.Retransmits > 0 || i.Probes > 0
	})
}

// liftAndClose removes the obstacle, and closes in order after the second portion has arrived.
func (c *obstructed) liftAndClose() {
	c.Lift(c.n)
	readAll(c.child, portion)
	c.client.Shutdown(unix.SHUT_WR)
	c.finish()
}

// finAndLift closes while the obstacle is there, and then removes it.
func (c *obstructed) finAndLift() {
	c.client.Shutdown(unix.SHUT_WR)
	c.Lift(c.n)
	readAll(c.child, portion)
	c.finish()
}

// finish closes both ends, after both portions have arrived.
func (c *obstructed) finish() {
	c.child.ReadEOF()
	c.child.Close()
	c.client.ReadEOF()
	c.client.Close()
	c.listener.Close()
	c.sent, c.arrived = 2*portion, 2*portion
}

// reset resets the connection while data waits that was never sent. A route that has just lost
// its device takes one segment without an error.
func (c *obstructed) reset() {
	c.arrived = portion
	c.sent = 2*portion - uint64(c.client.Info().Notsent_bytes)
	c.client.SetLinger(0)
	c.client.Close()
	c.Lift(c.n)
	c.child.SetLinger(0)
	c.child.Close()
	c.listener.Close()
}

// A queue that TCP_REPAIR restores counts as the process's own send() or recv() count
// does, and the restored connection has no role, because it was made elsewhere.
func TestConnection_RestoredByRepair(t *testing.T) {
	harness.RequireFeature(t, probe.SocketStorage)
	for _, f := range tcplab.Families {
		t.Run(f.String(), func(t *testing.T) {
			var cookie uint64
			lines := harness.RecordsByCookie(t, func(n *tcplab.Netns) {
				s := n.Socket(f.Loopback())
				cookie = s.Cookie()
				s.SetsockoptInt(unix.IPPROTO_TCP, tcpRepair, 1)
				s.Bind(f.At(7001))
				for queue, seq := range map[int]int{tcpSendQueue: 1000, tcpRecvQueue: 2000} {
					s.SetsockoptInt(unix.IPPROTO_TCP, tcpRepairQueue, queue)
					s.SetsockoptInt(unix.IPPROTO_TCP, tcpQueueSeq, seq)
				}
				s.Connect(f.At(7002))
				s.SetsockoptInt(unix.IPPROTO_TCP, tcpRepairQueue, tcpRecvQueue)
				s.Write("received before")
				s.SetsockoptInt(unix.IPPROTO_TCP, tcpRepairQueue, tcpSendQueue)
				s.Write("sent")
				s.SetsockoptInt(unix.IPPROTO_TCP, tcpRepair, -1) // off, without a window probe
				if got := s.Read(); got != "received before" {
					t.Errorf("read %q", got)
				}
				s.SetLinger(0)
				s.Close()
			})
			wantBytes(t, end(t, lines, cookie), uint64(len("sent")), uint64(len("received before")))
			for _, l := range lines {
				if l.Conn == harness.ConnID(cookie) && l.Role != "" {
					t.Errorf("role %q of a restored connection: %s", l.Role, l.Raw)
				}
			}
		})
	}
}
