package kernel_test

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/kernelmatrix/expect"
)

// What an MPTCP socket shows of itself are its subflows: TCP sockets of the kernel's
// own, without a descriptor, often moved on by a kernel thread. They are those of the
// process that has the MPTCP socket.

const (
	mptcpPort  = 7000
	mptcpFirst = 7100 // the clients' own ports, by which the subflows are found
)

// requireMPTCP skips where the kernel does not have it.
func (w *world) requireMPTCP() {
	w.t.Helper()
	if !sysctlExists("net.mptcp.enabled") {
		lacks(w.t, expect.MPTCP, "there is no sysctl net.mptcp.enabled")
	}
	w.n.Sysctl("net.mptcp.enabled", "1")
}

func (th *thread) mptcpListen(protocol int) *sock {
	th.a.w.t.Helper()
	s := th.socket(loopback, protocol)
	th.setInt(s, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	th.bind(s, at(mptcpPort))
	s.byPorts = protocol == unix.IPPROTO_MPTCP
	th.startListening(s)
	return s
}

func (th *thread) mptcpDial(protocol int, port uint16) *sock {
	th.a.w.t.Helper()
	s := th.socket(loopback, protocol)
	th.bind(s, at(port))
	s.byPorts = protocol == unix.IPPROTO_MPTCP
	th.connect(s, at(mptcpPort))
	return s
}

func (th *thread) mptcpAccept(listener *sock) *sock {
	th.a.w.t.Helper()
	s := th.accept(listener)
	s.byPorts = listener.byPorts
	return s
}

// exchange makes sure that both sides know that the other one speaks MPTCP.
func exchange(client *actor, c *sock, server *actor, s *sock) {
	client.write(c, "question")
	server.read(s)
	server.write(s, "answer")
	client.read(c)
}

var mptcpSides = []struct {
	name                     string
	listenerSide, clientSide int
}{
	{"both", unix.IPPROTO_MPTCP, unix.IPPROTO_MPTCP},
	{"the listener only", unix.IPPROTO_MPTCP, unix.IPPROTO_TCP},
	{"the client only", unix.IPPROTO_TCP, unix.IPPROTO_MPTCP},
}

// Whether the other side speaks MPTCP or falls back to TCP.
func TestOwner_MPTCPSubflows(t *testing.T) {
	for _, sides := range mptcpSides {
		for _, clientFirst := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, client first %v", sides.name, clientFirst), func(t *testing.T) {
				play(t, func(w *world) {
					w.requireMPTCP()
					server, client := w.pair()
					listener := server.mptcpListen(sides.listenerSide)
					for i := range uint16(2) {
						c := client.mptcpDial(sides.clientSide, mptcpFirst+i)
						s := server.mptcpAccept(listener)
						exchange(client, c, server, s)
						mptcpEnd(w, client, c, server, s, clientFirst)
					}
				})
			})
		}
	}
}

// mptcpEnd closes both ends; TCP_INFO is not to be had of them.
func mptcpEnd(w *world, client *actor, c *sock, server *actor, s *sock, clientFirst bool) {
	w.t.Helper()
	if clientFirst {
		client.close(c)
		server.read(s)
		server.close(s)
	} else {
		server.close(s)
		client.read(c)
		client.close(c)
	}
}

// As with TCP: opened before the tracer came, found by its scan.
func olderMPTCPCases() (cases []olderCase) {
	for _, sides := range mptcpSides {
		cases = append(cases, olderCase{"an MPTCP connection is its process's, MPTCP on " + sides.name, func(w *world) {
			w.requireMPTCP()
			server, client := w.pair()
			listener := server.mptcpListen(sides.listenerSide)
			c := client.mptcpDial(sides.clientSide, mptcpFirst)
			s := server.mptcpAccept(listener)
			exchange(client, c, server, s)
			w.trace()
			d := client.mptcpDial(sides.clientSide, mptcpFirst+1)
			e := server.mptcpAccept(listener)
			exchange(client, d, server, e)
			mptcpEnd(w, client, d, server, e, true)
			mptcpEnd(w, client, c, server, s, false)
			w.finish()
		}})
	}
	return append(cases, olderCase{"who takes an MPTCP endpoint away is not the owner of its subflows", endpointTakenAway})
}

// The MPTCP socket goes to another process; its opener has closed its own and must
// not be named when a kernel thread ends the subflows on the heir's behalf.
func TestOwner_MPTCPPassedOn(t *testing.T) {
	for _, operates := range []bool{false, true} {
		t.Run(fmt.Sprintf("heir operates %v", operates), func(t *testing.T) {
			play(t, func(w *world) {
				w.requireMPTCP()
				server, client := w.pair()
				heir := w.startActor("heir", 1)
				listener := server.mptcpListen(unix.IPPROTO_MPTCP)
				c := client.mptcpDial(unix.IPPROTO_MPTCP, mptcpFirst)
				s := server.mptcpAccept(listener)
				exchange(client, c, server, s)
				client.pass(c, heir, true)
				server.pass(s, heir, true)
				if operates {
					heir.shutdown(c, unix.SHUT_WR)
				}
				heir.close(c)
				heir.read(s)
				heir.close(s)
			})
		})
	}
}

// A process with an MPTCP connection is killed.
func TestOwner_MPTCPKilled(t *testing.T) {
	play(t, func(w *world) {
		w.requireMPTCP()
		server, client := w.pair()
		listener := server.mptcpListen(unix.IPPROTO_MPTCP)
		c := client.mptcpDial(unix.IPPROTO_MPTCP, mptcpFirst)
		s := server.mptcpAccept(listener)
		exchange(client, c, server, s)
		client.kill()
		server.read(s)
		server.close(s)
	})
}

// A listener that the kernel makes for itself, here for MPTCP's path manager, is
// nobody's: not even of the process that asked for it, which has no descriptor.
func TestOwner_KernelListener(t *testing.T) {
	play(t, func(w *world) {
		w.requireMPTCP()
		server, client := w.pair()
		manager := w.startActor("path-manager", 1)
		manager.addEndpoint(at(7200))
		w.socks = append(w.socks, &sock{what: "the kernel's listener", role: "listener", byPorts: true, local: at(7200)})
		listener := server.mptcpListen(unix.IPPROTO_MPTCP)
		c := client.mptcpDial(unix.IPPROTO_MPTCP, mptcpFirst)
		s := server.mptcpAccept(listener)
		exchange(client, c, server, s)
		mptcpEnd(w, client, c, server, s, true)
		manager.flushEndpoints()
	})
}
