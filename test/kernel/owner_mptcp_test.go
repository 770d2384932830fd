package kernel_test

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

var mptcpSides = []struct {
	name                     string
	listenerSide, clientSide int
}{
	{"both", unix.IPPROTO_MPTCP, unix.IPPROTO_MPTCP},
	{"the listener only", unix.IPPROTO_MPTCP, unix.IPPROTO_TCP},
	{"the client only", unix.IPPROTO_TCP, unix.IPPROTO_MPTCP},
}

// The process that has an MPTCP socket open owns its subflows, whether the peer has
// MPTCP or the connection falls back to TCP.
func TestOwner_MPTCPSubflows(t *testing.T) {
	for _, sides := range mptcpSides {
		for _, clientFirst := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, client first %v", sides.name, clientFirst), func(t *testing.T) {
				harness.Run(t, func(env *harness.Env) {
					env.RequireMPTCP()
					server, client := env.ServerAndClient()
					listener := server.MPTCPListen(sides.listenerSide)
					for i := range uint16(2) {
						c := client.MPTCPDial(sides.clientSide, harness.MPTCPFirst+i)
						s := server.MPTCPAccept(listener)
						harness.Exchange(client, c, server, s)
						harness.MPTCPClose(env, client, c, server, s, clientFirst)
					}
				})
			})
		}
	}
}

// olderMPTCPCases are connections from before the tracer, which its scan finds.
func olderMPTCPCases() (cases []harness.OlderCase) {
	for _, sides := range mptcpSides {
		cases = append(cases, harness.OlderCase{Name: "MPTCP connection, MPTCP on " + sides.name, Body: func(env *harness.Env) {
			env.RequireMPTCP()
			server, client := env.ServerAndClient()
			listener := server.MPTCPListen(sides.listenerSide)
			c := client.MPTCPDial(sides.clientSide, harness.MPTCPFirst)
			s := server.MPTCPAccept(listener)
			harness.Exchange(client, c, server, s)
			env.TraceFromHere()
			d := client.MPTCPDial(sides.clientSide, harness.MPTCPFirst+1)
			e := server.MPTCPAccept(listener)
			harness.Exchange(client, d, server, e)
			harness.MPTCPClose(env, client, d, server, e, true)
			harness.MPTCPClose(env, client, c, server, s, false)
			env.Finish()
		}})
	}
	return append(cases, harness.OlderCase{Name: "MPTCP endpoint removed", Body: endpointTakenAway})
}

// A listener for MPTCP gets its cookie when it is first asked for, by SO_COOKIE, ss or any
// other program: before it listens, while it has connections, or never. Its process owns
// new connections before and after that.
func TestOwner_MPTCPListenerCookie(t *testing.T) {
	lines := harness.RecordsByCookie(t, func(n *tcplab.Netns) {
		harness.RequireMPTCP(t, n)
		listener := n.SocketOf(tcplab.V4.Loopback(), unix.IPPROTO_MPTCP)
		listener.ReuseAddr()
		listener.Bind(tcplab.V4.At(7001))
		if err := unix.Listen(listener.FD, 16); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			client := n.Dial(tcplab.V4.At(7001))
			child := listener.Accept()
			client.Close()
			child.ReadEOF()
			child.Close()
			listener.Cookie()
		}
		listener.Close()
	})
	seen := 0
	for _, l := range harness.OfType(lines, "transition") {
		if l.Role != "server" || l.New != "SYN_RECV" && l.New != "ESTABLISHED" {
			continue
		}
		seen++
		if l.PID == nil || l.Source != "listener" {
			t.Errorf("want the listener's owner: %s", l.Raw)
		}
	}
	if seen != 4 {
		t.Errorf("%d transitions of new connections, want 4", seen)
	}
}

// The opener passes an MPTCP socket to another process and closes it. It must not be
// named when a kernel thread ends the subflows for the receiver.
func TestOwner_MPTCPPassedOn(t *testing.T) {
	for _, operates := range []bool{false, true} {
		t.Run(fmt.Sprintf("receiver operates %v", operates), func(t *testing.T) {
			harness.Run(t, func(env *harness.Env) {
				env.RequireMPTCP()
				server, client := env.ServerAndClient()
				receiver := env.StartActor("receiver", 1)
				listener := server.MPTCPListen(unix.IPPROTO_MPTCP)
				c := client.MPTCPDial(unix.IPPROTO_MPTCP, harness.MPTCPFirst)
				s := server.MPTCPAccept(listener)
				harness.Exchange(client, c, server, s)
				client.PassFD(c, receiver, true)
				server.PassFD(s, receiver, true)
				if operates {
					receiver.Shutdown(c, unix.SHUT_WR)
				}
				receiver.Close(c)
				receiver.Read(s)
				receiver.Close(s)
			})
		})
	}
}

// A process with an MPTCP connection is killed. It owns the subflows to the end.
func TestOwner_MPTCPKilled(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		env.RequireMPTCP()
		server, client := env.ServerAndClient()
		listener := server.MPTCPListen(unix.IPPROTO_MPTCP)
		c := client.MPTCPDial(unix.IPPROTO_MPTCP, harness.MPTCPFirst)
		s := server.MPTCPAccept(listener)
		harness.Exchange(client, c, server, s)
		client.Kill()
		server.Read(s)
		server.Close(s)
	})
}

// A listener that the kernel makes for itself, here for MPTCP's path manager, has no
// owner. The process that asked for it has no descriptor of it.
func TestOwner_KernelListener(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		env.RequireMPTCP()
		server, client := env.ServerAndClient()
		manager := env.StartActor("path-manager", 1)
		manager.AddEndpoint(harness.At(7200))
		env.Sockets = append(env.Sockets, &harness.Socket{What: "the kernel's listener", Role: "listener", ByPorts: true, Local: harness.At(7200)})
		listener := server.MPTCPListen(unix.IPPROTO_MPTCP)
		c := client.MPTCPDial(unix.IPPROTO_MPTCP, harness.MPTCPFirst)
		s := server.MPTCPAccept(listener)
		harness.Exchange(client, c, server, s)
		harness.MPTCPClose(env, client, c, server, s, true)
		manager.FlushEndpoints()
	})
}
