package kernel_test

import (
	"testing"

	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// A dead process is named for its orphan while its pid is free. Once another process
// has the pid, no owner is named: a record never shows a reused pid for a dead process.
func TestOwner_ReusedPID(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		parent, peer := env.StartActor("parent", 1), env.StartActor("peer", 1)
		dying := parent.Fork("the-dead", 0, 0)
		_, toOrphan := harness.OrphanOf(env, dying, peer)
		parent.Fork("the-reborn", 0, dying.PID)
		env.KnownLimits = append(env.KnownLimits, func(l harness.Record, _ *harness.Socket) bool { return l.Old == "FIN_WAIT1" || l.Old == "FIN_WAIT2" })
		peer.AllowIncoming(toOrphan)
		peer.AwaitState(toOrphan, tcplab.CloseWait)
	})
}

// The new process with that pid has the same name. It must not be named either.
func TestOwner_ReusedPIDSameName(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		parent, peer := env.StartActor("parent", 1), env.StartActor("peer", 1)
		dying := parent.Fork("same-name", 0, 0)
		_, toOrphan := harness.OrphanOf(env, dying, peer)
		parent.Fork("same-name", 0, dying.PID)
		env.KnownLimits = append(env.KnownLimits, func(l harness.Record, _ *harness.Socket) bool { return l.Old == "FIN_WAIT1" || l.Old == "FIN_WAIT2" })
		peer.AllowIncoming(toOrphan)
		peer.AwaitState(toOrphan, tcplab.CloseWait)
	})
}

// While its pid is free, the dead process is the right owner: no process has had the
// socket since.
func TestOwner_OrphanOfDeadProcess(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		parent, peer := env.StartActor("parent", 1), env.StartActor("peer", 1)
		dying := parent.Fork("the-dead", 0, 0)
		_, toOrphan := harness.OrphanOf(env, dying, peer)
		peer.AllowIncoming(toOrphan)
		peer.AwaitState(toOrphan, tcplab.CloseWait)
	})
}

// Another process has the socket open, and the pid of the dead process is in use again.
// Neither the new process with that pid nor the dead one may be named.
func TestOwner_ReusedPIDLivingOwner(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		parent, peer := env.StartActor("parent", 1), env.StartActor("peer", 1)
		dying := parent.Fork("the-dead", 0, 0)
		receiver := env.StartActor("receiver", 1)
		g := harness.ConnectBoth(env, dying, peer)
		for _, s := range []*harness.Socket{g.Client, g.Child} {
			dying.PassFD(s, receiver, false)
		}
		dying.Kill()
		parent.Fork("the-reborn", 0, dying.PID)
		peer.Close(g.ClientPeer, g.ChildPeer)
		for _, s := range []*harness.Socket{g.Client, g.Child} {
			receiver.AwaitState(s, tcplab.CloseWait)
			receiver.Close(s)
		}
	})
}

// The opener of a listener is dead and its pid in use again. The process with that pid
// must not be named for connections of the listener.
func TestOwner_ReusedPIDListener(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		parent, client := env.ServerAndClient()
		dying := parent.Fork("the-dead", 0, 0)
		listener := dying.Listen(harness.At(7000))
		receiver := env.StartActor("receiver", 1)
		dying.PassFD(listener, receiver, false)
		dying.Kill()
		parent.Fork("the-reborn", 0, dying.PID)
		for _, clientFirst := range []bool{true, false} {
			c := client.Dial(harness.At(7000))
			harness.CloseInOrder(client, c, receiver, receiver.Accept(listener), clientFirst)
		}
	})
}
