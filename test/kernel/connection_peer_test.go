package kernel_test

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/test/injector"
	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

const (
	fin, syn, rst, ack = injector.FIN, injector.SYN, injector.RST, injector.ACK

	peerPort = 7900
)

// A SYN-ACK of a fast open carries data, and may carry the FIN as well: received_bytes
// has the data and not the FIN.
func TestConnection_SYNACKWithData(t *testing.T) {
	harness.RequireFeature(t, probe.SocketStorage)
	for name, withFIN := range map[string]injector.Flags{"data": 0, "data and FIN": fin} {
		for _, f := range tcplab.Families {
			t.Run(fmt.Sprintf("%s %v", name, f), func(t *testing.T) {
				var cookie uint64
				lines := harness.RecordsByCookie(t, func(n *tcplab.Netns) {
					allowFastOpen(n)
					p := injector.New(t, n, f.At(peerPort))
					s := n.Socket(f.Loopback())
					cookie = s.Cookie()
					s.WriteFastOpen("early", f.At(peerPort), unix.MSG_DONTWAIT)
					c, first := p.Accept()
					if first.Data != "early" {
						t.Fatalf("the SYN has %q", first.Data)
					}
					c.Send(syn|ack|withFIN, "answer")
					readAll(s, len("answer"))
					if withFIN == 0 {
						c.Send(fin|ack, "")
					}
					s.ReadEOF()
					s.Close()
					c.Await(fin)
					c.Send(ack, "")
					p.Close()
				})
				l := end(t, lines, cookie)
				wantBytes(t, l, uint64(len("early")), uint64(len("answer")))
				if l.ClosedBy != "peer" {
					t.Errorf("closed_by %q, want peer: %s", l.ClosedBy, l.Raw)
				}
			})
		}
	}
}

// A SYN carries data for a listener with fast open, and the next segment the FIN, before
// the handshake is over or after. (The kernel drops a SYN with a FIN.)
func TestConnection_SYNWithData(t *testing.T) {
	for name, more := range map[string]string{"FIN": "", "data and FIN": "more"} {
		for _, f := range tcplab.Families {
			t.Run(fmt.Sprintf("%s %v", name, f), func(t *testing.T) {
				var cookie uint64
				lines := harness.RecordsByCookie(t, func(n *tcplab.Netns) {
					n.Sysctl("net.ipv4.tcp_fastopen", "515") // 0x200: no cookie needed
					listener := n.Listen(listenAt(f, 7001), func(s *tcplab.Socket) { s.SetsockoptInt(unix.IPPROTO_TCP, unix.TCP_FASTOPEN, 16) })
					p := injector.New(t, n, f.At(peerPort))
					c, answer := p.Open(f.At(7001), "early")
					if answer.Ack != c.Next {
						t.Fatal("the SYN's data was not acknowledged")
					}
					child := listener.Accept()
					cookie = child.Cookie()
					c.Send(fin|ack, more)
					readAll(child, len("early"+more))
					child.ReadEOF()
					child.Write("answer")
					child.Close()
					c.Await(fin)
					c.Send(ack, "")
					n.Settle(2) // the listener and that of the peer
					listener.Close()
					p.Close()
				})
				wantBytes(t, end(t, lines, cookie), uint64(len("answer")), uint64(len("early"+more)))
			})
		}
	}
}

// victim is a socket of the kernel, accepted from a peer that misbehaves.
type victim struct {
	*tcplab.Socket
	peer *injector.Conn
}

// The steps by which a victim reaches a state.
var reach = map[string]func(v *victim){
	"ESTABLISHED": func(*victim) {},
	"CLOSE_WAIT": func(v *victim) {
		v.peer.Send(fin|ack, "")
		v.Await(tcplab.CloseWait)
	},
	"LAST_ACK": func(v *victim) {
		v.peer.Send(fin|ack, "")
		v.Await(tcplab.CloseWait)
		v.Shutdown(unix.SHUT_WR)
		v.peer.Await(fin)
	},
	"FIN_WAIT1": func(v *victim) {
		v.Shutdown(unix.SHUT_WR)
		v.peer.Await(fin)
	},
	"FIN_WAIT2": func(v *victim) {
		v.Shutdown(unix.SHUT_WR)
		v.peer.Await(fin)
		v.peer.Send(ack, "")
		v.Await(tcplab.FinWait2)
	},
	"CLOSING": func(v *victim) {
		v.Shutdown(unix.SHUT_WR)
		v.peer.Await(fin)
		v.peer.Ack--
		v.peer.Send(fin|ack, "")
		v.peer.Ack++
		v.Await(tcplab.Closing)
	},
	// Without close() the process may still ask for the error.
	"FIN_WAIT1, shut down": func(v *victim) {
		v.Shutdown(unix.SHUT_RDWR)
		v.peer.Await(fin)
	},
	"FIN_WAIT2, shut down": func(v *victim) {
		v.Shutdown(unix.SHUT_RDWR)
		v.peer.Await(fin)
		v.peer.Send(ack, "")
		v.Await(tcplab.FinWait2)
	},
	"FIN_WAIT1, closed": func(v *victim) {
		v.Close()
		v.peer.Await(fin)
	},
	// TCP_LINGER2 above a minute keeps the orphan a full socket.
	"FIN_WAIT2, closed": func(v *victim) {
		v.SetsockoptInt(unix.IPPROTO_TCP, unix.TCP_LINGER2, 120)
		v.Close()
		v.peer.Await(fin)
		v.peer.Send(ack, "")
	},
}

// What a peer does with a victim.
var (
	reset = func(v *victim) { v.peer.Send(rst|ack, "") }
	// pastFIN sends data that begins at the peer's FIN and goes beyond it, and waits for
	// the reset of the kernel. The segment does not acknowledge the victim's FIN, which
	// would end LAST_ACK and CLOSING first.
	pastFIN = func(v *victim) {
		s := injector.Segment{Seq: v.peer.Next - 1, Ack: v.peer.Ack, Flags: ack, Data: "past"}
		if v.FD >= 0 && tcplab.State(v.Info().State) != tcplab.CloseWait {
			s.Ack--
		}
		v.peer.Inject(s)
		v.peer.Await(rst)
	}
	// afterClose sends data to a socket that is closed, with or without an
	// acknowledgement of its FIN.
	afterClose = func(v *victim) {
		v.peer.Send(ack, "late")
		v.peer.Await(rst)
	}
	afterCloseUnacked = func(v *victim) {
		v.peer.Inject(injector.Segment{Seq: v.peer.Next, Ack: v.peer.Ack - 1, Flags: ack, Data: "late"})
		v.peer.Await(rst)
	}
)

// Misbehaving peers in every state: closed_by and the error at the end, for a socket that
// no process touches meanwhile.
func TestConnection_MisbehavingPeer(t *testing.T) {
	for _, row := range []struct {
		state, what     string
		do              func(v *victim)
		closedBy, error string
	}{
		{"ESTABLISHED", "RST", reset, "reset_received", "ECONNRESET"},
		{"CLOSE_WAIT", "RST", reset, "reset_received", "EPIPE"},
		{"LAST_ACK", "RST", reset, "reset_received", "ECONNRESET"},
		{"FIN_WAIT1", "RST", reset, "reset_received", "ECONNRESET"},
		{"FIN_WAIT2", "RST", reset, "reset_received", "ECONNRESET"},
		{"CLOSING", "RST", reset, "reset_received", "ECONNRESET"},
		{"FIN_WAIT1, closed", "RST", reset, "reset_received", "ECONNRESET"},
		{"FIN_WAIT2, closed", "RST", reset, "reset_received", "ECONNRESET"},

		{"FIN_WAIT1, closed", "data after close", afterCloseUnacked, "reset_sent", "ECONNRESET"},
		{"FIN_WAIT1, closed", "data after close, with the ACK", afterClose, "reset_sent", ""},
		{"FIN_WAIT2, closed", "data after close", afterClose, "reset_sent", "ECONNRESET"},
		{"CLOSE_WAIT", "data past the FIN", pastFIN, "reset_sent", "EPIPE"},
		{"LAST_ACK", "data past the FIN", pastFIN, "reset_sent", "ECONNRESET"},
		{"CLOSING", "data past the FIN", pastFIN, "reset_sent", "ECONNRESET"},
	} {
		for _, f := range tcplab.Families {
			t.Run(fmt.Sprintf("%s in %s %v", row.what, row.state, f), func(t *testing.T) {
				var cookie uint64
				lines := harness.RecordsByCookie(t, func(n *tcplab.Netns) {
					listener := n.Listen(listenAt(f, 7001))
					p := injector.New(t, n, f.At(peerPort))
					v := &victim{peer: p.Dial(f.At(7001))}
					v.Socket = listener.Accept()
					cookie = v.Cookie()
					reach[row.state](v)
					row.do(v)
					if v.FD >= 0 {
						v.Await(tcplab.Close)
						v.Close()
					}
					n.Settle(2) // the listener and that of the peer
					listener.Close()
					p.Close()
				})
				l := end(t, lines, cookie)
				if l.ClosedBy != row.closedBy || l.Error != row.error {
					t.Errorf("closed_by %q and error %q, want %q and %q: %s", l.ClosedBy, l.Error, row.closedBy, row.error, l.Raw)
				}
				wantBytes(t, l, 0, 0)
			})
		}
	}
}

// The peer refuses a connection.
func TestConnection_PeerRefuses(t *testing.T) {
	for _, f := range tcplab.Families {
		t.Run(f.String(), func(t *testing.T) {
			var cookie uint64
			lines := harness.RecordsByCookie(t, func(n *tcplab.Netns) {
				p := injector.New(t, n, f.At(peerPort))
				s := n.Socket(f.Loopback())
				cookie = s.Cookie()
				s.StartConnect(f.At(peerPort))
				c, _ := p.Accept()
				c.Send(rst|ack, "")
				s.AwaitError(unix.ECONNREFUSED)
				s.Close()
				p.Close()
			})
			if l := end(t, lines, cookie); l.ClosedBy != "refused" || l.LocalPort == 0 {
				t.Errorf("closed_by %q: %s", l.ClosedBy, l.Raw)
			}
		})
	}
}

// noteUnreachable leaves an ICMP error on an established socket, which goes on. The peer
// has received 6 bytes then, and not acknowledged them.
func noteUnreachable(s *tcplab.Socket, c *injector.Conn) {
	if s.Addr().Addr().Unmap().Is4() {
		s.SetsockoptInt(unix.IPPROTO_IP, unix.IP_RECVERR, 1)
	} else {
		s.SetsockoptInt(unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1)
	}
	s.Write("answer")
	c.AwaitData(len("answer"))
	c.Unreachable()
}

// An ICMP error comes while the connection is established, and stays on the socket. The
// connection then ends in order.
func TestConnection_UnreachableWhileEstablished(t *testing.T) {
	for _, f := range tcplab.Families {
		t.Run(f.String(), func(t *testing.T) {
			var cookie uint64
			lines := harness.RecordsByCookie(t, func(n *tcplab.Netns) {
				listener := n.Listen(listenAt(f, 7001))
				p := injector.New(t, n, f.At(peerPort))
				c := p.Dial(f.At(7001))
				s := listener.Accept()
				cookie = s.Cookie()
				noteUnreachable(s, c)
				c.Send(fin|ack, "")
				s.Await(tcplab.CloseWait)
				s.Close()
				c.Await(fin)
				c.Send(ack, "")
				n.Settle(2)
				listener.Close()
				p.Close()
			})
			l := end(t, lines, cookie)
			if l.ClosedBy != "peer" || l.Error != "EHOSTUNREACH" {
				t.Errorf("closed_by %q and error %q, want peer and EHOSTUNREACH: %s", l.ClosedBy, l.Error, l.Raw)
			}
			wantBytes(t, l, uint64(len("answer")), 0)
		})
	}
}
