package kernel_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/kernel/harness"
)

// endpointTakenAway is `ip mptcp endpoint flush`: it closes subflows of all connections
// of the namespace, in a process that has none of them open.
func endpointTakenAway(env *harness.Env) {
	t := env.T
	env.RequireMPTCP()
	server, client := env.ServerAndClient()
	manager := env.StartActor("path-manager", 1)
	manager.AddSubflowEndpoint(netip.MustParseAddr("127.0.0.2"))
	listener := server.MPTCPListen(unix.IPPROTO_MPTCP)
	c := client.MPTCPDial(unix.IPPROTO_MPTCP, harness.MPTCPFirst)
	s := server.MPTCPAccept(listener)
	env.TraceFromHere()
	harness.Exchange(client, c, server, s)
	time.Sleep(300 * time.Millisecond) // until a kernel thread has made the second subflow
	from := harness.Now()
	manager.FlushEndpoints()
	until := harness.Now()
	time.Sleep(300 * time.Millisecond)
	harness.MPTCPClose(env, client, c, server, s, true)
	server.Close(listener)
	env.Netns.Settle(0)
	seen := 0
	for _, l := range slices.Concat(env.Collect()...) {
		at := harness.Moment(l.Time.UnixNano())
		if l.Type != "transition" || l.Netns != env.Netns.Inode() {
			continue
		}
		if from <= at && at <= until {
			seen++
		}
		if l.PID != nil && int(*l.PID) == manager.PID {
			t.Errorf("a record names the path manager, which has no TCP socket open: %s", l.Raw)
		}
	}
	if seen == 0 {
		t.Error("no transition while the endpoint was removed")
	}
}

// A process that adds an MPTCP endpoint makes further subflows of all connections of
// the namespace. It does not own them.
func TestOwner_MPTCPEndpointAdded(t *testing.T) {
	env := harness.NewEnv(t)
	env.RequireMPTCP()
	server, client := env.ServerAndClient()
	manager := env.StartActor("path-manager", 1)
	env.UseSharedTracers()
	listener := server.MPTCPListen(unix.IPPROTO_MPTCP)
	c := client.MPTCPDial(unix.IPPROTO_MPTCP, harness.MPTCPFirst)
	s := server.MPTCPAccept(listener)
	harness.Exchange(client, c, server, s)
	harness.Exchange(client, c, server, s)
	manager.AddSubflowEndpoint(netip.MustParseAddr("127.0.0.2"))
	time.Sleep(300 * time.Millisecond)
	harness.MPTCPClose(env, client, c, server, s, true)
	server.Close(listener)
	env.Netns.Settle(0)
	seen := 0
	for _, l := range slices.Concat(env.Collect()...) {
		if l.Type != "transition" || l.LocalAddr != "127.0.0.2" {
			continue
		}
		seen++
		if l.PID != nil && int(*l.PID) == manager.PID {
			t.Errorf("a record names the path manager, which has no TCP socket open: %s", l.Raw)
		}
	}
	if seen == 0 {
		t.Error("no record of a second subflow")
	}
}
