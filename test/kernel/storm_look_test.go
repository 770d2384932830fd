package kernel_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/netns"
	"github.com/tcpshift/tcpshift/internal/probe"
)

// Whoever looks closely at a socket takes its lock. When a segment comes in meanwhile
// it is the looker that carries out the transition as it gives the lock back: with
// the lock, and without any right to the socket.

// ss -ti, in a loop and several times at once, beside processes that hold their
// sockets' locks nearly all the time, so that it often has to wait for them.
func TestStorm_SockDiagDump(t *testing.T) {
	w := newStormWorld(t)
	for i := range 3 {
		w.startProgram(fmt.Sprintf("dumper-%d", i), 1).lookForEver()
	}
	checkStorm(t, w, blow(w, stormConnections(t)/5, opHangUp, opPush))
}

func (a *actor) lookForEver() {
	a.w.t.Helper()
	a.requireDump()
	a.order(opDump).send(uintptr(a.openDiag()))
}

// tcpshift snapshot walks the sockets with an iterator, which locks each of them.
func TestStorm_Snapshot(t *testing.T) {
	w := newStormWorld(t)
	here, err := netns.Find([]uint32{w.n.Inode()})
	if err != nil {
		t.Fatal(err)
	}
	defer netns.CloseAll(here)
	enough, done := make(chan struct{}), make(chan error)
	errEnough := errors.New("enough")
	go func() {
		// One load, and as many walks as the storm lasts.
		done <- probe.Snapshot(slices.Repeat(here, 1_000_000), func([]byte, time.Duration) error {
			select {
			case <-enough:
				return errEnough
			default:
				return nil
			}
		})
	}()
	st := blow(w, stormConnections(t)/5, opHangUp, opPush)
	close(enough)
	if err := <-done; !errors.Is(err, errEnough) {
		t.Errorf("snapshot: %v", err)
	}
	checkStorm(t, w, st)
}

// The lookers' process has opened all the sockets itself, and then left them to a
// child: what it has been does not make it an owner again.
func TestStorm_DumpByFormerOwner(t *testing.T) {
	const connections = 8
	rounds := shareOfStorm(t, 60, 20)
	w := newStormWorld(t)
	server, opener := w.startProgram("a-server", 1), w.startActor("opener", 4)
	listener := server.listen(everywhere(7000))
	opener.requireDump()
	for _, looking := range opener.threads[1:] {
		looking.order(opDump).send(uintptr(opener.openDiag()))
	}
	for range rounds {
		opener.must(opOpen, 7000, connections)
		pusher := opener.fork("", 0, 0)
		pusher.exec("pusher")
		opener.must(opCloseAll, connections)
		hangUp, push := server.order(opHangUp), pusher.order(opPushOpen)
		hangUp.send(server.fd(listener), connections)
		push.send(connections)
		for _, o := range []*order{hangUp, push} {
			if n, err := o.wait(); n != connections {
				t.Fatalf("%d connections: %v", n, err)
			}
		}
		pusher.exit()
	}
	server.close(listener)
	w.n.Settle(0)
	named := map[string]int{}
	for _, l := range ofType(w.collect()[0], "transition") {
		if l.Role != "client" || l.Old == "CLOSE" || l.Old == "SYN_SENT" {
			continue
		}
		named[l.Comm+" "+l.Source]++
		if l.Comm != "pusher" && l.PID != nil {
			t.Errorf("wrong owner: %s", l.raw)
		}
	}
	t.Logf("after connecting: %v", named)
	if len(named) == 0 {
		t.Error("nothing was told of the clients")
	}
}
