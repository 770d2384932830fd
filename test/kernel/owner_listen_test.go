package kernel_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/kernelmatrix/expect"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// The worker has accepted, and everybody has closed the listener. What its opener
// opens next takes the number and maybe the very memory of the listener's file: the
// opener has no listener all the same, and must not be named.
func TestOwner_ListenerFileReplaced(t *testing.T) {
	play(t, func(w *world) {
		opener, client := w.pair()
		listener := opener.listen(at(7000))
		worker := opener.fork("worker", 0, 0)
		var clients, children []*sock
		for range 8 {
			clients = append(clients, client.dial(at(7000)))
			children = append(children, worker.accept(listener))
		}
		worker.close(listener)
		opener.close(listener) // the last: its file is freed on this CPU
		for i := range 8 {
			// A socket is the likeliest to get the same memory; a few more for other numbers.
			s := opener.socket(loopback, unix.IPPROTO_TCP)
			client.close(clients[i])
			worker.awaitState(children[i], tcplab.CloseWait)
			if i%2 == 0 {
				opener.close(s)
			}
		}
	})
}

// With net.ipv4.tcp_migrate_req a listener that ends leaves its queue to another one
// on the same port. Its opener has the descriptor still, but listens no more: what
// was in the queue is the other listener's.
func TestOwner_MigratedQueue(t *testing.T) {
	play(t, func(w *world) {
		if !sysctlExists("net.ipv4.tcp_migrate_req") || isBefore(t, 5, 14) { // some 5.10 have the name only
			lacks(t, expect.QueueMigration, "there is no net.ipv4.tcp_migrate_req that works")
		}
		w.n.Sysctl("net.ipv4.tcp_migrate_req", "1")
		client := w.startActor("a-client", 1)
		first, second := w.startActor("first", 1), w.startActor("second", 1)
		old := first.listen(at(7000), first.reusePort)
		var clients []*sock
		for range 4 {
			clients = append(clients, client.dial(at(7000)))
		}
		heir := second.listen(at(7000), second.reusePort)
		first.shutdown(old, unix.SHUT_RD) // LISTEN to CLOSE; the descriptor stays
		for range 2 {
			s := second.accept(heir)
			s.listeners = []*sock{old, heir}
			inOrder(client, clientOf(s, clients), second, s, true)
		}
		for _, c := range clients { // these end while they wait in the second's queue
			if client.table.has(c) {
				s := w.unaccepted(old, c)
				s.listeners = []*sock{old, heir}
				client.lingerZero(c)
				client.close(c)
			}
		}
	})
}

// clientOf is the client at the other end.
func clientOf(s *sock, clients []*sock) *sock {
	for _, c := range clients {
		if c.local == s.peer {
			return c
		}
	}
	return nil
}

const fastOpenBothWithoutCookie = "519" // client, server, no cookie needed on either side

// A listener that is shut down listens no more, although its opener has it open. The
// connections that were accepted from it live on, and are not the opener's.
func TestOwner_ListenerShutDown(t *testing.T) {
	play(t, func(w *world) {
		opener, client := w.pair()
		listener := opener.listen(at(7000))
		worker := opener.fork("worker", 0, 0)
		c := client.dial(at(7000))
		s := worker.accept(listener)
		opener.shutdown(listener, unix.SHUT_RD)
		inOrder(client, c, worker, s, true)
	})
}

// With TCP fast open the child is made by the SYN and can be accepted in SYN_RECV:
// it is its acceptor's from then on, and before it is the listener's holder's at most.
func TestOwner_FastOpenChild(t *testing.T) {
	play(t, func(w *world) {
		w.n.Sysctl("net.ipv4.tcp_fastopen", fastOpenBothWithoutCookie)
		parent, client := w.pair()
		listener := parent.listen(at(7000), parent.fastOpen)
		worker := parent.fork("worker", 0, 0)
		for _, clientFirst := range []bool{true, false} {
			c := client.dialFast(at(7000), "early", 0)
			s := worker.accept(listener)
			worker.read(s)
			inOrder(client, c, worker, s, clientFirst)
		}
	})
}

// The client hears no answer, so that the child stays in SYN_RECV until its acceptor
// gives up: LISTEN to SYN_RECV was before that one accepted it.
func TestOwner_FastOpenChildAborted(t *testing.T) {
	play(t, func(w *world) {
		w.n.Sysctl("net.ipv4.tcp_fastopen", fastOpenBothWithoutCookie)
		parent, client := w.pair()
		listener := parent.listen(at(7000), parent.fastOpen)
		worker := parent.fork("worker", 0, 0)
		c := client.dialFast(at(7000), "early", unix.MSG_DONTWAIT)
		s := worker.accept(listener)
		worker.awaitState(s, tcplab.SynRecv)
		worker.lingerZero(s)
		worker.close(s)
		client.close(c)
	})
}

func (th *thread) fastOpen(s *sock) {
	th.setInt(s, unix.IPPROTO_TCP, unix.TCP_FASTOPEN, 16)
}
