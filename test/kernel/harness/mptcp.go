package harness

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/kernelmatrix/expect"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// With mptcpFlagSubflow a client makes another subflow from the endpoint's address.
const (
	mptcpFlagSubflow   = 2
	mptcpCmdSetLimits  = 5
	mptcpAttrAddAddrs  = 2
	mptcpAttrSubflows  = 3
	mptcpNestedAddress = mptcpAttrAddr | 1<<15
)

// AddSubflowEndpoint adds an MPTCP endpoint for subflows, and allows two of them.
func (th *thread) AddSubflowEndpoint(addr netip.Addr) {
	env := th.actor.env
	env.T.Helper()
	family, four := th.mptcpFamily(), addr.As4()
	limits := append(attribute(mptcpAttrAddAddrs, binary.NativeEndian.AppendUint32(nil, 2)),
		attribute(mptcpAttrSubflows, binary.NativeEndian.AppendUint32(nil, 2))...)
	if _, err := th.generic(family, mptcpCmdSetLimits, limits); err != nil {
		env.T.Fatalf("set MPTCP limits: %v", err)
	}
	endpoint := attribute(mptcpAddrFamily, binary.NativeEndian.AppendUint16(nil, unix.AF_INET))
	endpoint = append(endpoint, attribute(mptcpAddrID, []byte{9})...)
	endpoint = append(endpoint, attribute(mptcpAddrAddr4, four[:])...)
	endpoint = append(endpoint, attribute(mptcpAddrFlags, binary.NativeEndian.AppendUint32(nil, mptcpFlagSubflow))...)
	if _, err := th.generic(family, mptcpCmdAddAddr, attribute(mptcpNestedAddress, endpoint)); err != nil {
		env.T.Fatalf("add an MPTCP endpoint: %v", err)
	}
}

// The subflows of an MPTCP socket are TCP sockets of the kernel without a descriptor; a
// kernel thread often changes their state. Their owner is the process that has the
// MPTCP socket.

const mptcpPort = 7000

// MPTCPFirst is the lowest local port of MPTCP clients. Records of subflows are found by
// their ports.
const MPTCPFirst = 7100

// RequireMPTCP skips the test where the kernel has no MPTCP, and enables it.
func (env *Env) RequireMPTCP() {
	env.T.Helper()
	RequireMPTCP(env.T, env.Netns)
}

// RequireMPTCP skips the test where the kernel has no MPTCP, and enables it in a namespace.
func RequireMPTCP(t *testing.T, n *tcplab.Netns) {
	t.Helper()
	if !SysctlExists("net.mptcp.enabled") {
		SkipUnlessRequired(t, expect.MPTCP, "there is no sysctl net.mptcp.enabled")
	}
	n.Sysctl("net.mptcp.enabled", "1")
}

// MPTCPListen makes a listener for IPPROTO_MPTCP or IPPROTO_TCP.
func (th *thread) MPTCPListen(protocol int) *Socket {
	th.actor.env.T.Helper()
	s := th.Socket(LoopbackAddr, protocol)
	th.SetInt(s, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	th.Bind(s, At(mptcpPort))
	s.ByPorts = protocol == unix.IPPROTO_MPTCP
	th.StartListening(s)
	return s
}

// MPTCPDial connects from the port, with IPPROTO_MPTCP or IPPROTO_TCP.
func (th *thread) MPTCPDial(protocol int, port uint16) *Socket {
	th.actor.env.T.Helper()
	s := th.Socket(LoopbackAddr, protocol)
	th.Bind(s, At(port))
	s.ByPorts = protocol == unix.IPPROTO_MPTCP
	th.Connect(s, At(mptcpPort))
	return s
}

// MPTCPAccept accepts a connection of MPTCPListen.
func (th *thread) MPTCPAccept(listener *Socket) *Socket {
	th.actor.env.T.Helper()
	s := th.Accept(listener)
	s.ByPorts = listener.ByPorts
	return s
}

// Exchange sends data in both directions. Then both sides know whether the peer uses
// MPTCP.
func Exchange(client *Actor, c *Socket, server *Actor, s *Socket) {
	client.Write(c, "question")
	server.Read(s)
	server.Write(s, "answer")
	client.Read(c)
}

// MPTCPClose closes both ends. It cannot use AwaitState: an MPTCP socket has no TCP_INFO.
func MPTCPClose(env *Env, client *Actor, c *Socket, server *Actor, s *Socket, clientFirst bool) {
	env.T.Helper()
	if clientFirst {
		client.Close(c)
		server.Read(s)
		server.Close(s)
	} else {
		server.Close(s)
		client.Read(c)
		client.Close(c)
	}
}
