package kernel_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/injector"
	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// include/uapi/linux/tcp.h
const (
	tcpRepair      = 19
	tcpRepairQueue = 20
	tcpQueueSeq    = 21
	tcpRecvQueue   = 1
	tcpSendQueue   = 2
)

// A close in TCP_REPAIR mode, as CRIU makes it, sends nothing: closed_by is not
// reset_sent.
func TestConnection_CloseInRepairMode(t *testing.T) {
	for name, end := range map[string]func(s *tcplab.Socket){"close": (*tcplab.Socket).Close, "disconnect": (*tcplab.Socket).Disconnect} {
		t.Run(name, func(t *testing.T) {
			var cookie uint64
			lines := harness.RecordsByCookie(t, func(n *tcplab.Netns) {
				listener := n.Listen(tcplab.V4.At(7001))
				c := n.Dial(tcplab.V4.At(7001))
				cookie = c.Cookie()
				child := listener.Accept()
				c.SetsockoptInt(unix.IPPROTO_TCP, tcpRepair, 1)
				end(c)
				if child.Readable() {
					t.Error("the close sent a segment to the peer")
				}
				child.SetLinger(0)
				child.Close()
				listener.Close()
			})
			for _, l := range harness.RecordsWith(lines, "connection", cookie) {
				if l.ClosedBy == "reset_sent" {
					t.Errorf("closed_by is reset_sent, but no reset was sent: %s", l.Raw)
				}
			}
		})
	}
}

// With IP_RECVERR an ICMP error stays on the socket, which goes on. The connection then
// ends in order, so closed_by is the side that closed first.
func TestConnection_SurvivedError(t *testing.T) {
	for name, clientFirst := range map[string]bool{"client first": true, "server first": false} {
		t.Run(name, func(t *testing.T) {
			var cookie uint64
			lines := harness.RecordsByCookie(t, func(n *tcplab.Netns) {
				p := injector.New(t, n, tcplab.V4.At(peerPort))
				client := n.Socket(tcplab.V4.Loopback())
				cookie = client.Cookie()
				client.StartConnect(tcplab.V4.At(peerPort))
				c, _ := p.Accept()
				c.Send(syn|ack, "")
				client.Await(tcplab.Established)
				noteUnreachable(client, c)
				if clientFirst {
					client.Shutdown(unix.SHUT_WR)
					c.Await(fin)
					c.Send(fin|ack, "")
				} else {
					c.Send(fin|ack, "")
					client.Await(tcplab.CloseWait)
					client.Shutdown(unix.SHUT_WR)
					c.Await(fin)
					c.Send(ack, "")
				}
				client.Await(tcplab.Close)
				client.Close()
				p.Close()
			})
			want := map[bool]string{true: "local", false: "peer"}[clientFirst]
			for _, l := range harness.RecordsWith(lines, "connection", cookie) {
				if l.ClosedBy != want && l.ClosedBy != "" {
					t.Errorf("closed_by %q, want %q: %s", l.ClosedBy, want, l.Raw)
				}
				if l.Error == "" {
					t.Logf("the record has no error: %s", l.Raw)
				}
			}
		})
	}
}

// The client disconnects in LAST_ACK, with unsent data and before the peer's ACK, so
// the peer gets a reset: closed_by is not peer.
func TestConnection_AbortInLastAck(t *testing.T) {
	var cookie, childCookie uint64
	lines := harness.RecordsByCookie(t, func(n *tcplab.Netns) {
		listener := n.Listen(tcplab.V4.At(7001))
		c := n.Dial(tcplab.V4.At(7001))
		child := listener.Accept()
		cookie, childCookie = c.Cookie(), child.Cookie()
		if err := unix.SetNonblock(c.FD, true); err != nil {
			t.Fatal(err)
		}
		child.Shutdown(unix.SHUT_WR)
		c.Await(tcplab.CloseWait)
		for b := make([]byte, 1<<16); ; { // more than the peer's window
			if _, err := unix.Write(c.FD, b); err != nil {
				break
			}
		}
		c.Shutdown(unix.SHUT_WR)
		c.Await(tcplab.LastAck)
		c.Disconnect()
		c.Close()
		child.AwaitError(unix.ECONNRESET)
		child.Close()
		listener.Close()
	})
	for _, l := range harness.RecordsWith(lines, "connection", cookie) {
		if l.ClosedBy == "peer" {
			t.Errorf("closed_by is peer, but this side dropped the connection: %s", l.Raw)
		}
	}
	for _, l := range harness.RecordsWith(lines, "connection", childCookie) {
		t.Logf("closed_by of the peer: %s", l.ClosedBy)
	}
}
