package kernel_test

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// destroyed runs a case in which a third process destroys sockets that it does not have
// open, as ss -K does. That process holds the lock of the socket but is never its
// owner: records name the process that has it open, or none.
func destroyed(t *testing.T, body func(env *harness.Env, server, client, destroyer *harness.Actor)) {
	t.Helper()
	env := harness.Run(t, func(env *harness.Env) {
		server, client := env.ServerAndClient()
		destroyer := env.StartActor("destroyer", 1)
		body(env, server, client, destroyer)
	})
	if env.Tally.All == 0 {
		t.Error("no transition was recorded")
	}
}

// A process destroys both ends of established connections, which it does not own.
func TestOwner_DestroyEstablished(t *testing.T) {
	destroyed(t, func(_ *harness.Env, server, client, destroyer *harness.Actor) {
		listener := server.Listen(harness.At(7000))
		for range 2 {
			c := client.Dial(harness.At(7000))
			s := server.Accept(listener)
			destroyer.Destroy(c)
			server.AwaitState(s, tcplab.Close)
			client.Close(c)
			server.Close(s)
			c = client.Dial(harness.At(7000))
			s = server.Accept(listener)
			destroyer.Destroy(s)
			client.AwaitState(c, tcplab.Close)
		}
	})
}

// A process destroys connections in CLOSE_WAIT and FIN_WAIT2, which it does not own.
func TestOwner_DestroyClosing(t *testing.T) {
	destroyed(t, func(_ *harness.Env, server, client, destroyer *harness.Actor) {
		listener := server.Listen(harness.At(7000))
		c := client.Dial(harness.At(7000))
		s := server.Accept(listener)
		client.Shutdown(c, unix.SHUT_WR)
		server.AwaitState(s, tcplab.CloseWait)
		client.AwaitState(c, tcplab.FinWait2)
		destroyer.Destroy(s)
		client.AwaitState(c, tcplab.Close)

		c = client.Dial(harness.At(7000))
		s = server.Accept(listener)
		client.Shutdown(c, unix.SHUT_WR)
		client.AwaitState(c, tcplab.FinWait2)
		destroyer.Destroy(c)
		server.AwaitState(s, tcplab.Close)
	})
}

// A process destroys orphans: one that its process has closed, and one of a dead
// process.
func TestOwner_DestroyOrphan(t *testing.T) {
	destroyed(t, func(env *harness.Env, server, client, destroyer *harness.Actor) {
		listener := server.Listen(harness.At(7000))
		c := client.Dial(harness.At(7000))
		s := server.Accept(listener)
		server.DropIncoming(s)
		client.Close(c)
		destroyer.Destroy(c)
		server.Discard(s)
		dying := env.StartActor("dying", 1)
		orphan, to := harness.OrphanOf(env, dying, server)
		destroyer.Destroy(orphan)
		server.Discard(to)
	})
}

// A process destroys a socket in SYN_SENT, which it does not own.
func TestOwner_DestroyConnecting(t *testing.T) {
	destroyed(t, func(_ *harness.Env, server, client, destroyer *harness.Actor) {
		server.Listen(harness.At(7000), server.DropIncoming)
		c := client.Socket(harness.LoopbackAddr, unix.IPPROTO_TCP)
		client.Must(unix.SYS_FCNTL, client.FD(c), unix.F_SETFL, unix.O_NONBLOCK)
		_ = client.TryConnect(c, harness.At(7000))
		client.AwaitState(c, tcplab.SynSent)
		c.Peer = harness.At(7000)
		destroyer.Destroy(c)
		client.AwaitState(c, tcplab.Close)
	})
}

// A process destroys a listener. The children in the queue die with it; only the
// process that has the listener open may be named for them.
func TestOwner_DestroyListener(t *testing.T) {
	destroyed(t, func(env *harness.Env, server, client, destroyer *harness.Actor) {
		listener := server.Listen(harness.At(7000))
		waiting := client.Dial(harness.At(7000))
		first := server.Accept(listener)
		c := client.Dial(harness.At(7000))
		env.NoteUnaccepted(listener, c)
		destroyer.Destroy(listener)
		client.AwaitState(c, tcplab.Close)
		harness.CloseInOrder(client, waiting, server, first, true)
	})
}

// A process destroys a timewait socket. No record names it as an owner.
func TestOwner_DestroyTimewait(t *testing.T) {
	destroyed(t, func(env *harness.Env, server, client, destroyer *harness.Actor) {
		listener := server.Listen(harness.At(7000))
		c := client.Dial(harness.At(7000))
		s := server.Accept(listener)
		harness.CloseInOrder(client, c, server, s, true)
		env.Netns.Settle(1)
		destroyer.Destroy(c)
		d := client.Socket(harness.LoopbackAddr, unix.IPPROTO_TCP)
		client.Bind(d, c.Local) // free again
		client.Connect(d, harness.At(7000))
		harness.CloseInOrder(client, d, server, server.Accept(listener), false)
	})
}

// shutdown() of a new socket fails with ENOTCONN but sets both directions to shut down
// (net/ipv4/af_inet.c, inet_shutdown). A listener made of that socket looks like one
// that its owner closes; the process that destroys it is still not its owner.
func TestOwner_DestroyShutDownListener(t *testing.T) {
	destroyed(t, func(_ *harness.Env, server, _, destroyer *harness.Actor) {
		listener := server.Listen(harness.At(7000), func(s *harness.Socket) {
			if _, err := server.Try(unix.SYS_SHUTDOWN, server.FD(s), unix.SHUT_RDWR); !errors.Is(err, unix.ENOTCONN) {
				t.Fatalf("shutdown() of a new socket: %v, want ENOTCONN", err)
			}
		})
		destroyer.Destroy(listener)
	})
}
