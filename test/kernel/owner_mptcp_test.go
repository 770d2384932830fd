package kernel_test

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/kernel/harness"
)

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
				harness.Run(t, func(env *harness.Env) {
					env.RequireMPTCP()
					server, client := env.ServerAndClient()
					listener := server.MPTCPListen(sides.listenerSide)
					for i := range uint16(2) {
						c := client.MPTCPDial(sides.clientSide, harness.MPTCPFirst+i)
						s := server.MPTCPAccept(listener)
						harness.Exchange(client, c, server, s)
						harness.MPTCPEnd(env, client, c, server, s, clientFirst)
					}
				})
			})
		}
	}
}

// As with TCP: opened before the tracer came, found by its scan.
func olderMPTCPCases() (cases []harness.OlderCase) {
	for _, sides := range mptcpSides {
		cases = append(cases, harness.OlderCase{Name: "an MPTCP connection is its process's, MPTCP on " + sides.name, Body: func(env *harness.Env) {
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
			harness.MPTCPEnd(env, client, d, server, e, true)
			harness.MPTCPEnd(env, client, c, server, s, false)
			env.Finish()
		}})
	}
	return append(cases, harness.OlderCase{Name: "who takes an MPTCP endpoint away is not the owner of its subflows", Body: endpointTakenAway})
}

// The MPTCP socket goes to another process; its opener has closed its own and must
// not be named when a kernel thread ends the subflows on the heir's behalf.
func TestOwner_MPTCPPassedOn(t *testing.T) {
	for _, operates := range []bool{false, true} {
		t.Run(fmt.Sprintf("heir operates %v", operates), func(t *testing.T) {
			harness.Run(t, func(env *harness.Env) {
				env.RequireMPTCP()
				server, client := env.ServerAndClient()
				heir := env.StartActor("heir", 1)
				listener := server.MPTCPListen(unix.IPPROTO_MPTCP)
				c := client.MPTCPDial(unix.IPPROTO_MPTCP, harness.MPTCPFirst)
				s := server.MPTCPAccept(listener)
				harness.Exchange(client, c, server, s)
				client.PassFD(c, heir, true)
				server.PassFD(s, heir, true)
				if operates {
					heir.Shutdown(c, unix.SHUT_WR)
				}
				heir.Close(c)
				heir.Read(s)
				heir.Close(s)
			})
		})
	}
}

// A process with an MPTCP connection is killed.
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

// A listener that the kernel makes for itself, here for MPTCP's path manager, is
// nobody's: not even of the process that asked for it, which has no descriptor.
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
		harness.MPTCPEnd(env, client, c, server, s, true)
		manager.FlushEndpoints()
	})
}
