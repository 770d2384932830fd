package kernel_test

import (
	"testing"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// orphanOf makes a connection of the process, has the peer go deaf, and kills the
// process: its FIN stays unanswered, the socket in FIN_WAIT1 and nobody's.
func orphanOf(w *world, dying, peer *actor) (orphan, toOrphan *sock) {
	w.t.Helper()
	listener := peer.listen(at(7002))
	orphan = dying.dial(at(7002))
	toOrphan = peer.accept(listener)
	peer.deaf(toOrphan)
	dying.kill()
	return orphan, toOrphan
}

// The orphan of a dead process is told as that process's while its number is free.
// Once another process has the number it would be taken for that one, so then
// nobody is named: a pid that has been reused is never reported for a dead process.
func TestOwner_ReusedPID(t *testing.T) {
	play(t, func(w *world) {
		parent, peer := w.startActor("parent", 1), w.startActor("peer", 1)
		dying := parent.fork("the-dead", 0, 0)
		_, toOrphan := orphanOf(w, dying, peer)
		parent.fork("the-reborn", 0, dying.pid)
		w.mayLack = append(w.mayLack, func(l line, _ *sock) bool { return l.Old == "FIN_WAIT1" || l.Old == "FIN_WAIT2" })
		peer.hear(toOrphan)
		peer.awaitState(toOrphan, tcplab.CloseWait)
	})
}

// The same name does not make it the same process.
func TestOwner_ReusedPIDSameName(t *testing.T) {
	play(t, func(w *world) {
		parent, peer := w.startActor("parent", 1), w.startActor("peer", 1)
		dying := parent.fork("twin", 0, 0)
		_, toOrphan := orphanOf(w, dying, peer)
		parent.fork("twin", 0, dying.pid)
		w.mayLack = append(w.mayLack, func(l line, _ *sock) bool { return l.Old == "FIN_WAIT1" || l.Old == "FIN_WAIT2" })
		peer.hear(toOrphan)
		peer.awaitState(toOrphan, tcplab.CloseWait)
	})
}

// While its number is free the dead process is still the right answer: nobody has
// had the socket since.
func TestOwner_OrphanOfDeadProcess(t *testing.T) {
	play(t, func(w *world) {
		parent, peer := w.startActor("parent", 1), w.startActor("peer", 1)
		dying := parent.fork("the-dead", 0, 0)
		_, toOrphan := orphanOf(w, dying, peer)
		peer.hear(toOrphan)
		peer.awaitState(toOrphan, tcplab.CloseWait)
	})
}

// Another process has the socket and the dead one's number is in use again: neither
// the number's new process, which has never had the socket, nor the dead one.
func TestOwner_ReusedPIDLivingOwner(t *testing.T) {
	play(t, func(w *world) {
		parent, peer := w.startActor("parent", 1), w.startActor("peer", 1)
		dying := parent.fork("the-dead", 0, 0)
		heir := w.startActor("heir", 1)
		g := connectBoth(w, dying, peer)
		for _, s := range []*sock{g.client, g.child} {
			dying.pass(s, heir, false)
		}
		dying.kill()
		parent.fork("the-reborn", 0, dying.pid)
		peer.close(g.toOther, g.toChild)
		for _, s := range []*sock{g.client, g.child} {
			heir.awaitState(s, tcplab.CloseWait)
			heir.close(s)
		}
	})
}

// A listener's opener is dead and its number in use again: the connections that
// come to the listener's heir are not that process's.
func TestOwner_ReusedPIDListener(t *testing.T) {
	play(t, func(w *world) {
		parent, client := w.pair()
		dying := parent.fork("the-dead", 0, 0)
		listener := dying.listen(at(7000))
		heir := w.startActor("heir", 1)
		dying.pass(listener, heir, false)
		dying.kill()
		parent.fork("the-reborn", 0, dying.pid)
		for _, clientFirst := range []bool{true, false} {
			c := client.dial(at(7000))
			inOrder(client, c, heir, heir.accept(listener), clientFirst)
		}
	})
}
