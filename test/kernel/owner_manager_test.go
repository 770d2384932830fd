package kernel_test

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// shutdown() of a fresh socket fails with ENOTCONN and leaves both its directions
// shut down all the same (net/ipv4/af_inet.c, inet_shutdown): a listener made of it
// looks like one whose owner is closing it.
func TestOwner_DestroyShutDownListener(t *testing.T) {
	destroyed(t, func(_ *world, server, _, destroyer *actor) {
		listener := server.listen(at(7000), func(s *sock) {
			if _, err := server.try(unix.SYS_SHUTDOWN, server.fd(s), unix.SHUT_RDWR); !errors.Is(err, unix.ENOTCONN) {
				t.Fatalf("shutdown of a fresh socket: %v", err)
			}
		})
		destroyer.destroy(listener)
	})
}

// mptcpFlagSubflow has a client make a further subflow from the endpoint's address.
const (
	mptcpFlagSubflow   = 2
	mptcpCmdSetLimits  = 5
	mptcpAttrAddAddrs  = 2
	mptcpAttrSubflows  = 3
	mptcpNestedAddress = mptcpAttrAddr | 1<<15
)

func (th *thread) addSubflowEndpoint(addr netip.Addr) {
	w := th.a.w
	w.t.Helper()
	family, four := th.mptcpFamily(), addr.As4()
	limits := append(attribute(mptcpAttrAddAddrs, binary.NativeEndian.AppendUint32(nil, 2)),
		attribute(mptcpAttrSubflows, binary.NativeEndian.AppendUint32(nil, 2))...)
	if _, err := th.generic(family, mptcpCmdSetLimits, limits); err != nil {
		w.t.Fatalf("set MPTCP limits: %v", err)
	}
	endpoint := attribute(mptcpAddrFamily, binary.NativeEndian.AppendUint16(nil, unix.AF_INET))
	endpoint = append(endpoint, attribute(mptcpAddrID, []byte{9})...)
	endpoint = append(endpoint, attribute(mptcpAddrAddr4, four[:])...)
	endpoint = append(endpoint, attribute(mptcpAddrFlags, binary.NativeEndian.AppendUint32(nil, mptcpFlagSubflow))...)
	if _, err := th.generic(family, mptcpCmdAddAddr, attribute(mptcpNestedAddress, endpoint)); err != nil {
		w.t.Fatalf("add an MPTCP endpoint: %v", err)
	}
}

// ip mptcp endpoint flush closes subflows of every connection of the namespace, in
// its own process, which has none of them.
func endpointTakenAway(w *world) {
	t := w.t
	w.requireMPTCP()
	server, client := w.pair()
	manager := w.startActor("path-manager", 1)
	manager.addSubflowEndpoint(netip.MustParseAddr("127.0.0.2"))
	listener := server.mptcpListen(unix.IPPROTO_MPTCP)
	c := client.mptcpDial(unix.IPPROTO_MPTCP, mptcpFirst)
	s := server.mptcpAccept(listener)
	w.trace()
	exchange(client, c, server, s)
	time.Sleep(300 * time.Millisecond) // a kernel thread makes the second subflow
	from := now()
	manager.flushEndpoints()
	until := now()
	time.Sleep(300 * time.Millisecond)
	mptcpEnd(w, client, c, server, s, true)
	server.close(listener)
	w.n.Settle(0)
	seen := 0
	for _, l := range slices.Concat(w.collect()...) {
		at := moment(l.Time.UnixNano())
		if l.Type != "transition" || l.Netns != w.n.Inode() {
			continue
		}
		if from <= at && at <= until {
			seen++
		}
		if l.PID != nil && int(*l.PID) == manager.pid {
			t.Errorf("the path manager has no socket at all: %s", l.raw)
		}
	}
	if seen == 0 {
		t.Error("no transition while the endpoint was taken away")
	}
}

// And who adds one makes further subflows of every connection there is.
func TestOwner_MPTCPEndpointAdded(t *testing.T) {
	w := newWorld(t)
	w.requireMPTCP()
	server, client := w.pair()
	manager := w.startActor("path-manager", 1)
	w.watch()
	listener := server.mptcpListen(unix.IPPROTO_MPTCP)
	c := client.mptcpDial(unix.IPPROTO_MPTCP, mptcpFirst)
	s := server.mptcpAccept(listener)
	exchange(client, c, server, s)
	exchange(client, c, server, s)
	manager.addSubflowEndpoint(netip.MustParseAddr("127.0.0.2"))
	time.Sleep(300 * time.Millisecond)
	mptcpEnd(w, client, c, server, s, true)
	server.close(listener)
	w.n.Settle(0)
	seen := 0
	for _, l := range slices.Concat(w.collect()...) {
		if l.Type != "transition" || l.LocalAddr != "127.0.0.2" {
			continue
		}
		seen++
		if l.PID != nil && int(*l.PID) == manager.pid {
			t.Errorf("the path manager has no socket at all: %s", l.raw)
		}
	}
	if seen == 0 {
		t.Error("no second subflow")
	}
}

// recordsOf plays something in a namespace of its own and gives all its records.
func recordsOf(t *testing.T, story func(n *tcplab.Netns)) []line {
	t.Helper()
	requireFeature(t, probe.SocketCookie) // by which a record is its socket's
	return toldOf(t, story)
}

func toldOf(t *testing.T, story func(n *tcplab.Netns)) []line {
	t.Helper()
	n := tcplab.NewNetns(t)
	tr := sharedTracers(t)[0]
	v := watch{tr, true, tr.size()}
	story(n)
	n.Settle(0)
	if err := fence(n); err != nil {
		t.Fatal(err)
	}
	lines, err := v.lines(n)
	if err != nil {
		t.Fatal(err)
	}
	return lines
}
