package kernel_test

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// The flags of a TCP header.
const (
	flagRST = 1 << 2
	flagACK = 1 << 4
)

// queueSeq is the sequence number at the end of one of the queues of s.
func queueSeq(s *tcplab.Socket, queue int) uint32 {
	s.SetsockoptInt(unix.IPPROTO_TCP, tcpRepair, 1)
	s.SetsockoptInt(unix.IPPROTO_TCP, tcpRepairQueue, queue)
	seq, _ := unix.GetsockoptInt(s.FD, unix.IPPROTO_TCP, tcpQueueSeq)
	s.SetsockoptInt(unix.IPPROTO_TCP, tcpRepair, -1) // off, without a window probe
	return uint32(seq)
}

// inject sends a segment to the peer of an IPv4 socket, as if the socket had sent it. It
// begins back bytes before the end of all that the socket has sent, its FIN included.
func inject(n *tcplab.Netns, as *tcplab.Socket, flags byte, back uint32, payload string) {
	const tcpRecvQueue = 1 // include/uapi/linux/tcp.h
	from, to := as.Addr(), as.Peer()
	segment := make([]byte, 20, 64)
	binary.BigEndian.PutUint16(segment[0:], from.Port())
	binary.BigEndian.PutUint16(segment[2:], to.Port())
	binary.BigEndian.PutUint32(segment[4:], queueSeq(as, tcpSendQueue)-back)
	binary.BigEndian.PutUint32(segment[8:], queueSeq(as, tcpRecvQueue))
	segment[12], segment[13] = 5<<4, flags
	binary.BigEndian.PutUint16(segment[14:], 512)
	segment = append(segment, payload...)
	pseudo := slices.Concat(from.Addr().AsSlice(), to.Addr().AsSlice(), []byte{0, unix.IPPROTO_TCP, 0, byte(len(segment))}, segment)
	binary.BigEndian.PutUint16(segment[16:], internetChecksum(pseudo))
	n.Do(func() {
		raw, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_TCP)
		if err == nil {
			err = unix.Bind(raw, &unix.SockaddrInet4{Addr: from.Addr().As4()})
		}
		if err == nil {
			err = unix.Sendto(raw, segment, 0, &unix.SockaddrInet4{Addr: to.Addr().As4()})
			unix.Close(raw)
		}
		if err != nil {
			panic(err)
		}
	})
}

func internetChecksum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i < len(b); i += 2 {
		word := uint32(b[i]) << 8
		if i+1 < len(b) {
			word |= uint32(b[i+1])
		}
		sum += word
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// connected is a connection whose child is the socket under test.
type connected struct {
	n             *tcplab.Netns
	client, child *tcplab.Socket
}

// bring brings the child into a state of TCP. In the states in which its FIN is not yet
// acknowledged, the client gets no segments.
var bring = map[string]func(c connected){
	"ESTABLISHED": func(connected) {},
	"CLOSE_WAIT": func(c connected) {
		c.client.Shutdown(unix.SHUT_WR)
		c.child.Await(tcplab.CloseWait)
	},
	"FIN_WAIT1": func(c connected) {
		c.client.DropIncoming()
		c.child.Shutdown(unix.SHUT_RDWR)
		c.child.Await(tcplab.FinWait1)
	},
	"FIN_WAIT2": func(c connected) {
		c.child.Shutdown(unix.SHUT_RDWR)
		c.child.Await(tcplab.FinWait2)
	},
	"CLOSING": func(c connected) {
		c.client.DropIncoming()
		c.child.Shutdown(unix.SHUT_WR)
		c.client.Shutdown(unix.SHUT_WR)
		c.child.Await(tcplab.Closing)
	},
	"LAST_ACK": func(c connected) {
		c.client.Shutdown(unix.SHUT_WR)
		c.child.Await(tcplab.CloseWait)
		c.client.DropIncoming()
		c.child.Shutdown(unix.SHUT_WR)
		c.child.Await(tcplab.LastAck)
	},
}

// endIn runs a connection whose child ends by what end does, in a state, and returns the
// last transition and the connection record of the child.
func endIn(t *testing.T, state string, end func(c connected)) (last, connection harness.Record) {
	t.Helper()
	var cookie uint64
	lines := harness.RecordsByCookie(t, func(n *tcplab.Netns) {
		listener := n.Listen(tcplab.V4.At(7001))
		c := connected{n: n, client: n.Dial(tcplab.V4.At(7001))}
		c.child = listener.Accept()
		cookie = c.child.Cookie()
		bring[state](c)
		end(c)
		c.child.Await(tcplab.Close)
		c.client.SetLinger(0)
		c.client.Close()
		c.child.Close()
		listener.Close()
	})
	transitions, connections := harness.RecordsWith(lines, "transition", cookie), harness.RecordsWith(lines, "connection", cookie)
	if len(transitions) == 0 || len(connections) != 1 {
		t.Fatalf("%d transitions and %d connection records", len(transitions), len(connections))
	}
	last = transitions[len(transitions)-1]
	if last.Old != state || last.New != "CLOSE" {
		t.Fatalf("the last transition is not from %s to CLOSE: %s", state, last.Raw)
	}
	return last, connections[0]
}

// checkReset checks closed_by, and that reset_reason is there if this side sent a reset and
// the kernel has reasons. It checks the name of the reason on 6.18 and later.
func checkReset(t *testing.T, last, connection harness.Record, closedBy, reason string) {
	t.Helper()
	if connection.ClosedBy != closedBy {
		t.Errorf("closed_by %q, want %q: %s", connection.ClosedBy, closedBy, connection.Raw)
	}
	if closedBy != "reset_sent" || harness.IsBefore(t, 6, 10) {
		reason = ""
	}
	for _, l := range []harness.Record{last, connection} {
		if (l.ResetReason == "") != (reason == "") || !harness.IsBefore(t, 6, 18) && l.ResetReason != reason {
			t.Errorf("reset_reason %q, want %q: %s", l.ResetReason, reason, l.Raw)
		}
	}
}

// A reset by the peer is reset_received in each state, also where data after the peer's FIN
// leaves the same error.
func TestConnection_ResetReceivedInEveryState(t *testing.T) {
	harness.RequireTracedResets(t)
	for state := range bring {
		t.Run(state, func(t *testing.T) {
			last, connection := endIn(t, state, func(c connected) { inject(c.n, c.client, flagRST|flagACK, 0, "") })
			checkReset(t, last, connection, "reset_received", "")
		})
	}
}

// Data after the peer's FIN, or after close() here, makes this side send a reset.
func TestConnection_ResetByDataAfterFIN(t *testing.T) {
	harness.RequireTracedResets(t)
	for state := range bring {
		if state == "ESTABLISHED" {
			continue
		}
		t.Run(state, func(t *testing.T) {
			back := uint32(0)
			if state != "FIN_WAIT1" && state != "FIN_WAIT2" {
				back = 1 // the kernel ignores a segment that begins after the peer's FIN
			}
			last, connection := endIn(t, state, func(c connected) { inject(c.n, c.client, flagACK, back, "more") })
			checkReset(t, last, connection, "reset_sent", "TCP_ABORT_ON_DATA")
		})
	}
}

// Ways in which a process resets its connection. An ICMP error that the connection has
// survived is not the cause.
func TestConnection_ResetByProcess(t *testing.T) {
	harness.RequireTracedResets(t)
	for name, tt := range map[string]struct {
		end    func(c connected)
		reason string
	}{
		"SO_LINGER 0": {func(c connected) { c.child.SetLinger(0); c.child.Close(); c.reopen() }, "TCP_STATE"},
		"AF_UNSPEC":   {func(c connected) { c.child.Disconnect() }, "TCP_STATE"},
		"data unread": {func(c connected) {
			c.client.Write("unread")
			c.child.AwaitReadable()
			c.child.Close()
			c.reopen()
		}, "TCP_ABORT_ON_CLOSE"},
	} {
		for _, withError := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, ICMP error %v", name, withError), func(t *testing.T) {
				last, connection := endIn(t, "ESTABLISHED", func(c connected) {
					if withError {
						c.child.SetsockoptInt(unix.IPPROTO_IP, unix.IP_RECVERR, 1)
						icmpUnreachable(c.n, c.child)
					}
					tt.end(c)
				})
				checkReset(t, last, connection, "reset_sent", tt.reason)
			})
		}
	}
}

// reopen gives the child a descriptor again after a close, for the rest of the test.
func (c connected) reopen() { *c.child = *c.n.Socket(tcplab.V4.Loopback()) }

// A fast-open child that nobody has accepted is in SYN_RECV. When its listener closes,
// the kernel resets it.
func TestConnection_ResetOfUnacceptedFastOpen(t *testing.T) {
	harness.RequireFeature(t, probe.SocketStorage)
	harness.RequireTracedResets(t)
	lines := harness.RecordsByCookie(t, func(n *tcplab.Netns) {
		n.Sysctl("net.ipv4.tcp_fastopen", fastOpenBothWithoutCookie)
		listener := n.Listen(tcplab.V4.At(7001), func(s *tcplab.Socket) { s.SetsockoptInt(unix.IPPROTO_TCP, unix.TCP_FASTOPEN, 16) })
		client := n.Socket(tcplab.V4.Loopback())
		client.DropIncoming()
		client.WriteFastOpen("early", tcplab.V4.At(7001), unix.MSG_DONTWAIT)
		listener.AwaitReadable()
		listener.Close()
		client.Close()
	})
	children := slices.DeleteFunc(harness.OfType(lines, "connection"), func(l harness.Record) bool { return l.Role != "server" })
	if len(children) != 1 {
		t.Fatalf("%d connection records of the child, want 1", len(children))
	}
	if children[0].ClosedBy != "reset_sent" {
		t.Errorf("closed_by %q, want reset_sent: %s", children[0].ClosedBy, children[0].Raw)
	}
}

// Without the tracepoints closed_by is what the error and the state allow, and records
// have no reset_reason.
func TestConnection_ResetWithoutTracepoints(t *testing.T) {
	harness.RequireFeature(t, probe.SocketCookie)
	n := tcplab.NewNetns(t)
	o := harness.InNamespace(n)
	o.Without = []string{probe.ResetReceived, probe.ResetSent}
	tr := harness.StartTracer(t, o)
	listener := n.Listen(tcplab.V4.At(7001))
	want := map[string]string{}
	for state, closedBy := range map[string]string{"ESTABLISHED": "reset_received", "CLOSE_WAIT": "reset_received", "FIN_WAIT2": ""} {
		c := connected{n: n, client: n.Dial(tcplab.V4.At(7001))}
		c.child = listener.Accept()
		want[harness.ConnID(c.child.Cookie())] = closedBy
		bring[state](c)
		inject(n, c.client, flagRST|flagACK, 0, "")
		c.child.Await(tcplab.Close)
		c.client.SetLinger(0)
		c.client.Close()
		c.child.Close()
	}
	listener.Close()
	for _, l := range tr.Stop() {
		if closedBy, mine := want[l.Conn]; mine && l.Type == "connection" {
			delete(want, l.Conn)
			if l.ClosedBy != closedBy {
				t.Errorf("closed_by %q, want %q: %s", l.ClosedBy, closedBy, l.Raw)
			}
		}
		if l.ResetReason != "" {
			t.Errorf("a reset_reason without the tracepoint: %s", l.Raw)
		}
	}
	if len(want) > 0 {
		t.Errorf("no connection record of %v", want)
	}
}
