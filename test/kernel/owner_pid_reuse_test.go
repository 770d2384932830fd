package kernel_test

import (
	"testing"

	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// The orphan of a dead process is told as that process's while its number is free.
// Once another process has the number it would be taken for that one, so then
// nobody is named: a pid that has been reused is never reported for a dead process.
func TestOwner_ReusedPID(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		parent, peer := env.StartActor("parent", 1), env.StartActor("peer", 1)
		dying := parent.Fork("the-dead", 0, 0)
		_, toOrphan := harness.OrphanOf(env, dying, peer)
		parent.Fork("the-reborn", 0, dying.PID)
		env.AllowMissing = append(env.AllowMissing, func(l harness.Record, _ *harness.Socket) bool { return l.Old == "FIN_WAIT1" || l.Old == "FIN_WAIT2" })
		peer.AllowIncoming(toOrphan)
		peer.AwaitState(toOrphan, tcplab.CloseWait)
	})
}

// The same name does not make it the same process.
func TestOwner_ReusedPIDSameName(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		parent, peer := env.StartActor("parent", 1), env.StartActor("peer", 1)
		dying := parent.Fork("twin", 0, 0)
		_, toOrphan := harness.OrphanOf(env, dying, peer)
		parent.Fork("twin", 0, dying.PID)
		env.AllowMissing = append(env.AllowMissing, func(l harness.Record, _ *harness.Socket) bool { return l.Old == "FIN_WAIT1" || l.Old == "FIN_WAIT2" })
		peer.AllowIncoming(toOrphan)
		peer.AwaitState(toOrphan, tcplab.CloseWait)
	})
}

// While its number is free the dead process is still the right answer: nobody has
// had the socket since.
func TestOwner_OrphanOfDeadProcess(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		parent, peer := env.StartActor("parent", 1), env.StartActor("peer", 1)
		dying := parent.Fork("the-dead", 0, 0)
		_, toOrphan := harness.OrphanOf(env, dying, peer)
		peer.AllowIncoming(toOrphan)
		peer.AwaitState(toOrphan, tcplab.CloseWait)
	})
}

// Another process has the socket and the dead one's number is in use again: neither
// the number's new process, which has never had the socket, nor the dead one.
func TestOwner_ReusedPIDLivingOwner(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		parent, peer := env.StartActor("parent", 1), env.StartActor("peer", 1)
		dying := parent.Fork("the-dead", 0, 0)
		heir := env.StartActor("heir", 1)
		g := harness.ConnectBoth(env, dying, peer)
		for _, s := range []*harness.Socket{g.Client, g.Child} {
			dying.PassFD(s, heir, false)
		}
		dying.Kill()
		parent.Fork("the-reborn", 0, dying.PID)
		peer.Close(g.ClientPeer, g.ChildPeer)
		for _, s := range []*harness.Socket{g.Client, g.Child} {
			heir.AwaitState(s, tcplab.CloseWait)
			heir.Close(s)
		}
	})
}

// A listener's opener is dead and its number in use again: the connections that
// come to the listener's heir are not that process's.
func TestOwner_ReusedPIDListener(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		parent, client := env.ServerAndClient()
		dying := parent.Fork("the-dead", 0, 0)
		listener := dying.Listen(harness.At(7000))
		heir := env.StartActor("heir", 1)
		dying.PassFD(listener, heir, false)
		dying.Kill()
		parent.Fork("the-reborn", 0, dying.PID)
		for _, clientFirst := range []bool{true, false} {
			c := client.Dial(harness.At(7000))
			harness.CloseInOrder(client, c, heir, heir.Accept(listener), clientFirst)
		}
	})
}
