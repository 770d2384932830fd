package kernel_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/netns"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/test/kernel/harness"
)

// A process that dumps sockets takes the lock of each. If a segment comes in meanwhile,
// that process makes the transition when it releases the lock: it holds the lock, but
// does not own the socket.

// Several processes run ss -ti in a loop, beside processes that hold their sockets'
// locks nearly all the time. The dumping processes are never named.
func TestStorm_SockDiagDump(t *testing.T) {
	env := harness.NewStormEnv(t)
	for i := range 3 {
		env.StartProgram(fmt.Sprintf("dumper-%d", i), 1).DumpForever()
	}
	harness.CheckStorm(t, env, harness.RunStorm(env, harness.StormConnections(t)/5, harness.OpAcceptClose, harness.OpConnectSend))
}

// A snapshot walks all sockets with an iterator, which locks each of them. Its process
// is never named.
func TestStorm_Snapshot(t *testing.T) {
	env := harness.NewStormEnv(t)
	here, err := netns.Find([]uint32{env.Netns.Inode()})
	if err != nil {
		t.Fatal(err)
	}
	enough, done := make(chan struct{}), make(chan error)
	errEnough := errors.New("enough")
	go func() {
		// One load, and a walk for each copy, as long as the storm lasts.
		done <- probe.Snapshot(slices.Repeat(here, 1_000_000), &filter.Filter{}, func([]byte, time.Duration) error {
			select {
			case <-enough:
				return errEnough
			default:
				return nil
			}
		})
	}()
	st := harness.RunStorm(env, harness.StormConnections(t)/5, harness.OpAcceptClose, harness.OpConnectSend)
	close(enough)
	if err := <-done; !errors.Is(err, errEnough) {
		t.Errorf("snapshot: %v, want the handler's error", err)
	}
	harness.CheckStorm(t, env, st)
}

// The process that dumps has opened all the sockets itself and left them to a child. It
// must not be named again.
func TestStorm_DumpByFormerOwner(t *testing.T) {
	const connections = 8
	rounds := harness.Scaled(t, 60, 20)
	env := harness.NewStormEnv(t)
	server, opener := env.StartProgram("a-server", 1), env.StartActor("opener", 4)
	listener := server.Listen(harness.Anywhere(7000))
	opener.RequireDump()
	for _, looking := range opener.Threads[1:] {
		looking.Order(harness.OpDump).Send(uintptr(opener.OpenDiag()))
	}
	for range rounds {
		opener.Must(harness.OpOpen, 7000, connections)
		pusher := opener.Fork("", 0, 0)
		pusher.Exec("pusher")
		opener.Must(harness.OpCloseAll, connections)
		acceptClose, push := server.Order(harness.OpAcceptClose), pusher.Order(harness.OpSendOpen)
		acceptClose.Send(server.FD(listener), connections)
		push.Send(connections)
		for _, o := range []*harness.Order{acceptClose, push} {
			if n, err := o.Wait(); n != connections {
				t.Fatalf("made %d connections: %v", n, err)
			}
		}
		pusher.Exit()
	}
	server.Close(listener)
	env.Netns.Settle(0)
	named := map[string]int{}
	for _, l := range harness.OfType(env.Collect()[0], "transition") {
		if l.Role != "client" || l.Old == "CLOSE" || l.Old == "SYN_SENT" {
			continue
		}
		named[l.Comm+" "+l.Source]++
		if l.Comm != "pusher" && l.PID != nil {
			t.Errorf("wrong owner: %s", l.Raw)
		}
	}
	t.Logf("after connecting: %v", named)
	if len(named) == 0 {
		t.Error("no transition of a client")
	}
}
