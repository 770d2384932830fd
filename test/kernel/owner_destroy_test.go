package kernel_test

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// destroyed plays a case in which a third process destroys what it does not have.
// It is right in no record: it holds the socket's lock and nothing else. The holder
// is, or nobody.
func destroyed(t *testing.T, story func(env *harness.Env, server, client, destroyer *harness.Actor)) {
	t.Helper()
	env := harness.Run(t, func(env *harness.Env) {
		server, client := env.ServerAndClient()
		destroyer := env.StartActor("destroyer", 1)
		story(env, server, client, destroyer)
	})
	if env.Tally.All == 0 {
		t.Error("no transition at all")
	}
}

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

// The orphan of a process that has closed it, or is dead.
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

// The children in the queue die with the listener: they are its holder's at most.
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

// shutdown() of a fresh socket fails with ENOTCONN and leaves both its directions
// shut down all the same (net/ipv4/af_inet.c, inet_shutdown): a listener made of it
// looks like one whose owner is closing it.
func TestOwner_DestroyShutDownListener(t *testing.T) {
	destroyed(t, func(_ *harness.Env, server, _, destroyer *harness.Actor) {
		listener := server.Listen(harness.At(7000), func(s *harness.Socket) {
			if _, err := server.Try(unix.SYS_SHUTDOWN, server.FD(s), unix.SHUT_RDWR); !errors.Is(err, unix.ENOTCONN) {
				t.Fatalf("shutdown of a fresh socket: %v", err)
			}
		})
		destroyer.Destroy(listener)
	})
}
