package kernel_test

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/tcp"
	"github.com/tcpshift/tcpshift/test/injector"
	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// endIn runs a connection whose kernel's side, the victim, ends by what end does, in one
// of the states of reach. It returns the last transition and the connection record.
func endIn(t *testing.T, state string, end func(v *victim)) (last, connection harness.Record) {
	t.Helper()
	var cookie uint64
	lines := harness.RecordsByCookie(t, func(n *tcplab.Netns) {
		listener := n.Listen(tcplab.V4.At(7001))
		p := injector.New(t, n, tcplab.V4.At(peerPort))
		v := &victim{peer: p.Dial(tcplab.V4.At(7001))}
		v.Socket = listener.Accept()
		cookie = v.Cookie()
		reach[state](v)
		end(v)
		if v.FD >= 0 {
			v.Await(tcplab.Close)
			v.Close()
		}
		n.Settle(2) // the listener and that of the peer
		listener.Close()
		p.Close()
	})
	transitions, connections := harness.RecordsWith(lines, "transition", cookie), harness.RecordsWith(lines, "connection", cookie)
	if len(transitions) == 0 || len(connections) != 1 {
		t.Fatalf("%d transitions and %d connection records", len(transitions), len(connections))
	}
	last = transitions[len(transitions)-1]
	if tcpState, _, _ := strings.Cut(state, ","); last.Old != tcpState || last.New != "CLOSE" {
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
	for state := range reach {
		t.Run(state, func(t *testing.T) {
			last, connection := endIn(t, state, reset)
			checkReset(t, last, connection, "reset_received", "")
		})
	}
}

// Data after the peer's FIN, or after close() here, makes this side send a reset.
func TestConnection_ResetByDataAfterFIN(t *testing.T) {
	harness.RequireTracedResets(t)
	for state, data := range map[string]func(v *victim){
		"CLOSE_WAIT": pastFIN, "LAST_ACK": pastFIN, "CLOSING": pastFIN,
		"FIN_WAIT1, shut down": afterCloseUnacked, "FIN_WAIT2, shut down": afterClose,
		"FIN_WAIT1, closed": afterCloseUnacked, "FIN_WAIT2, closed": afterClose,
	} {
		t.Run(state, func(t *testing.T) {
			last, connection := endIn(t, state, data)
			checkReset(t, last, connection, "reset_sent", "TCP_ABORT_ON_DATA")
		})
	}
}

// Ways in which a process resets its connection. An ICMP error that the connection has
// survived is not the cause.
func TestConnection_ResetByProcess(t *testing.T) {
	harness.RequireTracedResets(t)
	for name, tt := range map[string]struct {
		end    func(v *victim)
		reason string
	}{
		"SO_LINGER 0": {func(v *victim) { v.SetLinger(0); v.Close() }, "TCP_STATE"},
		"AF_UNSPEC":   {func(v *victim) { v.Disconnect() }, "TCP_STATE"},
		"data unread": {func(v *victim) {
			v.peer.Send(ack, "unread")
			v.AwaitReadable()
			v.Close()
		}, "TCP_ABORT_ON_CLOSE"},
	} {
		for _, withError := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, ICMP error %v", name, withError), func(t *testing.T) {
				last, connection := endIn(t, "ESTABLISHED", func(v *victim) {
					if withError {
						noteUnreachable(v.Socket, v.peer)
					}
					tt.end(v)
				})
				checkReset(t, last, connection, "reset_sent", tt.reason)
			})
		}
	}
}

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

// An orphan from before the start is in no descriptor table and has made no transition, so
// the tracer knows nothing of it when the reset arrives.
func TestConnection_ResetOfOlderOrphan(t *testing.T) {
	harness.RequireFeature(t, probe.SocketCookie)
	harness.RequireTracedResets(t)
	for _, state := range []string{"FIN_WAIT1, closed", "FIN_WAIT2, closed"} {
		t.Run(state, func(t *testing.T) {
			n := tcplab.NewNetns(t)
			listener := n.Listen(tcplab.V4.At(7001))
			p := injector.New(t, n, tcplab.V4.At(peerPort))
			v := &victim{peer: p.Dial(tcplab.V4.At(7001))}
			v.Socket = listener.Accept()
			cookie := v.Cookie()
			reach[state](v)
			tr := harness.StartTracer(t, harness.InNamespace(n))
			reset(v)
			n.Settle(2) // the listener and that of the peer
			connections := harness.RecordsWith(tr.Stop(), "connection", cookie)
			if len(connections) != 1 || connections[0].ClosedBy != "reset_received" {
				t.Errorf("the connection records are %+v, want one that is closed_by reset_received", connections)
			}
			p.Close()
			listener.Close()
		})
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
	p := injector.New(t, n, tcplab.V4.At(peerPort))
	for state, closedBy := range map[string]string{"ESTABLISHED": "reset_received", "CLOSE_WAIT": "reset_received", "FIN_WAIT2": ""} {
		v := &victim{peer: p.Dial(tcplab.V4.At(7001))}
		v.Socket = listener.Accept()
		want[harness.ConnID(v.Cookie())] = closedBy
		reach[state](v)
		reset(v)
		v.Await(tcplab.Close)
		v.Close()
	}
	p.Close()
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

// A socket that a filter leaves out is reset, and the kernel gives its memory to the next
// socket of this processor. The reset is not one of that socket.
func TestConnection_ResetOfFilteredSocket(t *testing.T) {
	harness.RequireFeature(t, probe.ResetReceived)
	const leftOut, traced = 7001, 7002
	n, other := tcplab.NewNetns(t), tcplab.NewNetns(t)
	for name, tt := range map[string]struct {
		of     *tcplab.Netns // of the socket that is left out
		filter filter.Filter
	}{
		"by port":      {n, filter.Filter{Netns: []uint32{n.Inode()}, LocalPorts: []filter.PortRange{{First: traced, Last: traced}}}},
		"by namespace": {other, filter.Filter{Netns: []uint32{n.Inode()}}},
	} {
		t.Run(name, func(t *testing.T) {
			pinToOneCPU(t)
			// Without socket storage every note of a reset is one of its processor.
			o := probe.Options{Filter: tt.filter, Without: []string{probe.SocketStorage}}
			p, q := injector.New(t, tt.of, tcplab.V4.At(peerPort)), injector.New(t, n, tcplab.V4.At(peerPort+1))
			first, second := tt.of.Listen(tcplab.V4.At(leftOut)), n.Listen(tcplab.V4.At(traced))
			ends, wrong := 0, 0
			for _, c := range harness.Transitions(t, o, func() {
				for range 20 {
					acceptFrom(first, p, leftOut, reset)
					acceptFrom(second, q, traced, endInOrder)
				}
			}) {
				if c.Local.Port != traced || c.Old != tcp.LastAck {
					continue
				}
				ends++
				if c.TCPReset {
					wrong++
				}
			}
			if ends != 20 || wrong != 0 {
				t.Errorf("%d ends in order, of which %d have the reset of another socket; want 20 and 0", ends, wrong)
			}
			for _, s := range []*tcplab.Socket{first, second} {
				s.Close()
			}
			p.Close()
			q.Close()
		})
	}
}

// acceptFrom accepts a connection from the peer and ends it.
func acceptFrom(listener *tcplab.Socket, p *injector.Peer, port uint16, end func(v *victim)) {
	v := &victim{peer: p.Dial(tcplab.V4.At(port))}
	v.Socket = listener.Accept()
	end(v)
	v.Await(tcplab.Close)
	v.Close()
}

// endInOrder lets the peer close first. The segment that ends the connection comes while no
// task owns the socket's lock.
func endInOrder(v *victim) {
	reach["LAST_ACK"](v)
	v.peer.Send(ack, "")
}

// pinToOneCPU lets the test run on one processor only, to its end.
func pinToOneCPU(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	var before, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		t.Fatal(err)
	}
	for cpu := range len(before) * 64 {
		if before.IsSet(cpu) {
			one.Set(cpu)
			break
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.SchedSetaffinity(0, &before); err != nil {
			t.Error(err)
		}
	})
}
