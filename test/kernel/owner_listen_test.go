package kernel_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/kernelmatrix/expect"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// A worker has accepted, and all processes have closed the listener. The file that its
// opener opens next may get the same descriptor and the same memory as the listener's
// file. The opener must not be named for the accepted connections.
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
		opener.Close(listener) // the last close: the file is freed on this CPU
		for i := range 8 {
			// A socket is most likely to get the same memory. Keep some open for other
			// descriptors.
			s := opener.Socket(harness.LoopbackAddr, unix.IPPROTO_TCP)
			client.Close(clients[i])
			worker.AwaitState(children[i], tcplab.CloseWait)
			if i%2 == 0 {
				opener.Close(s)
			}
		}
	})
}

// With net.ipv4.tcp_migrate_req a listener that is shut down moves its queue to another
// listener on the port. Its opener still has the descriptor, but the queue belongs to
// the other process.
func TestOwner_MigratedQueue(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		if !harness.SysctlExists("net.ipv4.tcp_migrate_req") || harness.IsBefore(t, 5, 14) { // some 5.10 kernels have a sysctl without effect
			harness.SkipUnlessRequired(t, expect.QueueMigration, "there is no net.ipv4.tcp_migrate_req that works")
		}
		env.Netns.Sysctl("net.ipv4.tcp_migrate_req", "1")
		client := env.StartActor("a-client", 1)
		first, second := env.StartActor("first", 1), env.StartActor("second", 1)
		old := first.Listen(harness.At(7000), first.ReusePort)
		var clients []*harness.Socket
		for range 4 {
			clients = append(clients, client.Dial(harness.At(7000)))
		}
		other := second.Listen(harness.At(7000), second.ReusePort)
		first.Shutdown(old, unix.SHUT_RD) // LISTEN to CLOSE; the descriptor stays open
		for range 2 {
			s := second.Accept(other)
			s.Listeners = []*harness.Socket{old, other}
			harness.CloseInOrder(client, clientOf(s, clients), second, s, true)
		}
		for _, c := range clients { // they end while they wait in the second queue
			if client.Table.Has(c) {
				s := env.NoteUnaccepted(old, c)
				s.Listeners = []*harness.Socket{old, other}
				client.LingerZero(c)
				client.Close(c)
			}
		}
	})
}

// clientOf returns the client at the other end.
func clientOf(s *harness.Socket, clients []*harness.Socket) *harness.Socket {
	for _, c := range clients {
		if c.Local == s.Peer {
			return c
		}
	}
	return nil
}

const fastOpenBothWithoutCookie = "519" // for clients and servers, without cookies

// After the shutdown of a listener its opener still has it open, but does not own the
// connections that were accepted from it.
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

// With TCP fast open the SYN makes the child, which can be accepted in SYN_RECV. From
// then on the acceptor owns it; before, only the process that has the listener open may
// be named.
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

// The client drops the answer, so that the child stays in SYN_RECV until its acceptor
// resets it. The acceptor owns it at the end, but not at LISTEN to SYN_RECV, before it
// was accepted.
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
