package kernel_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/kernelmatrix/expect"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// The worker has accepted, and everybody has closed the listener. What its opener
// opens next takes the number and maybe the very memory of the listener's file: the
// opener has no listener all the same, and must not be named.
func TestOwner_ListenerFileReplaced(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		opener, client := env.ServerAndClient()
		listener := opener.Listen(harness.At(7000))
		worker := opener.Fork("worker", 0, 0)
		var clients, children []*harness.Socket
		for range 8 {
			clients = append(clients, client.Dial(harness.At(7000)))
			children = append(children, worker.Accept(listener))
		}
		worker.Close(listener)
		opener.Close(listener) // the last: its file is freed on this CPU
		for i := range 8 {
			// A socket is the likeliest to get the same memory; a few more for other numbers.
			s := opener.Socket(harness.LoopbackAddr, unix.IPPROTO_TCP)
			client.Close(clients[i])
			worker.AwaitState(children[i], tcplab.CloseWait)
			if i%2 == 0 {
				opener.Close(s)
			}
		}
	})
}

// With net.ipv4.tcp_migrate_req a listener that ends leaves its queue to another one
// on the same port. Its opener has the descriptor still, but listens no more: what
// was in the queue is the other listener's.
func TestOwner_MigratedQueue(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		if !harness.SysctlExists("net.ipv4.tcp_migrate_req") || harness.IsBefore(t, 5, 14) { // some 5.10 have the name only
			harness.Lacks(t, expect.QueueMigration, "there is no net.ipv4.tcp_migrate_req that works")
		}
		env.Netns.Sysctl("net.ipv4.tcp_migrate_req", "1")
		client := env.StartActor("a-client", 1)
		first, second := env.StartActor("first", 1), env.StartActor("second", 1)
		old := first.Listen(harness.At(7000), first.ReusePort)
		var clients []*harness.Socket
		for range 4 {
			clients = append(clients, client.Dial(harness.At(7000)))
		}
		heir := second.Listen(harness.At(7000), second.ReusePort)
		first.Shutdown(old, unix.SHUT_RD) // LISTEN to CLOSE; the descriptor stays
		for range 2 {
			s := second.Accept(heir)
			s.Listeners = []*harness.Socket{old, heir}
			harness.CloseInOrder(client, clientOf(s, clients), second, s, true)
		}
		for _, c := range clients { // these end while they wait in the second's queue
			if client.Table.Has(c) {
				s := env.NoteUnaccepted(old, c)
				s.Listeners = []*harness.Socket{old, heir}
				client.LingerZero(c)
				client.Close(c)
			}
		}
	})
}

// clientOf is the client at the other end.
func clientOf(s *harness.Socket, clients []*harness.Socket) *harness.Socket {
	for _, c := range clients {
		if c.Local == s.Peer {
			return c
		}
	}
	return nil
}

const fastOpenBothWithoutCookie = "519" // client, server, no cookie needed on either side

// A listener that is shut down listens no more, although its opener has it open. The
// connections that were accepted from it live on, and are not the opener's.
func TestOwner_ListenerShutDown(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		opener, client := env.ServerAndClient()
		listener := opener.Listen(harness.At(7000))
		worker := opener.Fork("worker", 0, 0)
		c := client.Dial(harness.At(7000))
		s := worker.Accept(listener)
		opener.Shutdown(listener, unix.SHUT_RD)
		harness.CloseInOrder(client, c, worker, s, true)
	})
}

// With TCP fast open the child is made by the SYN and can be accepted in SYN_RECV:
// it is its acceptor's from then on, and before it is the listener's holder's at most.
func TestOwner_FastOpenChild(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		env.Netns.Sysctl("net.ipv4.tcp_fastopen", fastOpenBothWithoutCookie)
		parent, client := env.ServerAndClient()
		listener := parent.Listen(harness.At(7000), parent.FastOpen)
		worker := parent.Fork("worker", 0, 0)
		for _, clientFirst := range []bool{true, false} {
			c := client.DialFast(harness.At(7000), "early", 0)
			s := worker.Accept(listener)
			worker.Read(s)
			harness.CloseInOrder(client, c, worker, s, clientFirst)
		}
	})
}

// The client hears no answer, so that the child stays in SYN_RECV until its acceptor
// gives up: LISTEN to SYN_RECV was before that one accepted it.
func TestOwner_FastOpenChildAborted(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		env.Netns.Sysctl("net.ipv4.tcp_fastopen", fastOpenBothWithoutCookie)
		parent, client := env.ServerAndClient()
		listener := parent.Listen(harness.At(7000), parent.FastOpen)
		worker := parent.Fork("worker", 0, 0)
		c := client.DialFast(harness.At(7000), "early", unix.MSG_DONTWAIT)
		s := worker.Accept(listener)
		worker.AwaitState(s, tcplab.SynRecv)
		worker.LingerZero(s)
		worker.Close(s)
		client.Close(c)
	})
}
