package kernel_test

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/kernelmatrix/expect"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// Two users without privileges.
const attackerUID, otherUID = 1001, 1002

// Who leaves the kernel no room for the state of his sockets, in a network namespace of his own,
// hides their owner. Every transition is still recorded, and those without a state are counted.
func TestHostile_NoRoomForState(t *testing.T) {
	tcplab.RequireRoot(t)
	harness.RequireFeature(t, probe.SocketStorage)
	n := tcplab.NewNetns(t)
	const sysctl = "net.core.optmem_max"
	var err error
	n.Do(func() { _, err = os.Stat("/proc/sys/net/core/optmem_max") })
	if err != nil { // the whole host has one: no user can set it
		harness.SkipUnlessRequired(t, expect.OwnOptmem, err)
	}
	talk := func() {
		listener := n.Listen(tcplab.V4.At(7001))
		client := n.Dial(tcplab.V4.At(7001))
		child := listener.Accept()
		client.Close()
		child.ReadEOF()
		child.Close()
		listener.Close()
	}
	count := func() (transitions int, unavailable uint64) {
		tr := harness.StartTracer(t, harness.InNamespace(n))
		talk()
		lines := tr.Stop()
		return len(harness.OfType(lines, "transition")), lines[len(lines)-1].StateUnavailable
	}
	all, none := count()
	if all == 0 || none != 0 {
		t.Fatalf("with the usual room, %d transitions, %d without a state; want none", all, none)
	}
	n.Sysctl(sysctl, "0")
	transitions, without := count()
	if transitions != all {
		t.Errorf("%d transitions without room for states, %d with it", transitions, all)
	}
	const fewest = 2 + 5 // those of the listener and of the child; the client may have a slot of the table
	if without < fewest || without > uint64(all) {
		t.Errorf("%d transitions without a state, want from %d to %d", without, fewest, all)
	}
}

// A user sends sockets to a process of another user, which never receives them. The kernel closes them
// in the context of that process when it closes the Unix socket or
// exits. Nothing shows that it has not had them open, so it is not named.
func TestHostile_SocketSentToAnotherUser(t *testing.T) {
	for name, release := range map[string]func(receiver *harness.Actor, sent ...*harness.Socket){
		"it closes the Unix socket": func(receiver *harness.Actor, sent ...*harness.Socket) { receiver.CloseInbox(sent...) },
		"it exits":                  func(receiver *harness.Actor, _ ...*harness.Socket) { receiver.Exit() },
	} {
		for _, uid := range []int{0, otherUID} {
			t.Run(fmt.Sprintf("%s as user %d", name, uid), func(t *testing.T) {
				checkSent(t, "receiver", uid, func(giver, receiver *harness.Actor, sent ...*harness.Socket) {
					send(giver, receiver, sent...)
					release(receiver, sent...)
				})
			})
		}
	}
}

// A user sends sockets through a Unix socket that is itself in its queue, so that no process can
// receive them. The kernel's garbage collector closes them, in the context of any process that
// closes a Unix socket. No process is named.
func TestHostile_SocketsInACycle(t *testing.T) {
	for _, uid := range []int{0, otherUID} {
		t.Run(fmt.Sprintf("collected by user %d", uid), func(t *testing.T) {
			checkSent(t, "collector", uid, func(giver, collector *harness.Actor, sent ...*harness.Socket) {
				send(giver, giver, sent...)
				giver.LoseInbox()
				collector.CollectGarbage()
			})
		})
	}
}

// send sends sockets to the inbox of a process, and closes them.
func send(giver, receiver *harness.Actor, sent ...*harness.Socket) {
	for _, s := range sent {
		giver.SendFD(s, receiver)
	}
	giver.Close(sent...)
}

// checkSent checks that no process is named for two sockets of a user that lose makes the kernel close, in the context of
// a process with a name and a user.
func checkSent(t *testing.T, name string, uid int, lose func(giver, closer *harness.Actor, sent ...*harness.Socket)) {
	t.Helper()
	env := harness.NewEnv(t)
	env.UseSharedTracers()
	giver, peer, closer := env.StartActor("giver", 1), env.StartActor("peer", 1), env.StartActor(name, 1)
	giver.SetUID(attackerUID)
	if uid != 0 {
		closer.SetUID(uid)
	}
	g := harness.ConnectBoth(env, giver, peer)
	sent := []*harness.Socket{g.Client, g.Child}
	lose(giver, closer, sent...)
	for _, s := range []*harness.Socket{g.ClientPeer, g.ChildPeer} {
		peer.AwaitState(s, tcplab.CloseWait)
	}
	checkNobodyIsNamed(t, env, sent)
}

// checkNobodyIsNamed checks that each socket was closed, and that the records of its end name no process.
func checkNobodyIsNamed(t *testing.T, env *harness.Env, sent []*harness.Socket) {
	t.Helper()
	closed := 0
	for _, l := range env.Finish() {
		isSent := slices.ContainsFunc(sent, func(s *harness.Socket) bool { // not all kernels have cookies
			return s.Local.Port() == l.LocalPort && s.Peer.Port() == l.PeerPort
		})
		if !isSent || l.New != "FIN_WAIT1" {
			continue
		}
		if closed++; l.PID != nil {
			t.Errorf("it is named: %s", l.Raw)
		}
	}
	if closed != len(sent) {
		t.Errorf("%d sockets were closed, want %d", closed, len(sent))
	}
}
