package kernel_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// destroyed plays a case in which a third process destroys what it does not have.
// It is right in no record: it holds the socket's lock and nothing else. The holder
// is, or nobody.
func destroyed(t *testing.T, story func(w *world, server, client, destroyer *actor)) {
	t.Helper()
	w := play(t, func(w *world) {
		server, client := w.pair()
		destroyer := w.startActor("destroyer", 1)
		story(w, server, client, destroyer)
	})
	if w.score.all == 0 {
		t.Error("no transition at all")
	}
}

func TestOwner_DestroyEstablished(t *testing.T) {
	destroyed(t, func(_ *world, server, client, destroyer *actor) {
		listener := server.listen(at(7000))
		for range 2 {
			c := client.dial(at(7000))
			s := server.accept(listener)
			destroyer.destroy(c)
			server.awaitState(s, tcplab.Close)
			client.close(c)
			server.close(s)
			c = client.dial(at(7000))
			s = server.accept(listener)
			destroyer.destroy(s)
			client.awaitState(c, tcplab.Close)
		}
	})
}

func TestOwner_DestroyClosing(t *testing.T) {
	destroyed(t, func(_ *world, server, client, destroyer *actor) {
		listener := server.listen(at(7000))
		c := client.dial(at(7000))
		s := server.accept(listener)
		client.shutdown(c, unix.SHUT_WR)
		server.awaitState(s, tcplab.CloseWait)
		client.awaitState(c, tcplab.FinWait2)
		destroyer.destroy(s)
		client.awaitState(c, tcplab.Close)

		c = client.dial(at(7000))
		s = server.accept(listener)
		client.shutdown(c, unix.SHUT_WR)
		client.awaitState(c, tcplab.FinWait2)
		destroyer.destroy(c)
		server.awaitState(s, tcplab.Close)
	})
}

// The orphan of a process that has closed it, or is dead.
func TestOwner_DestroyOrphan(t *testing.T) {
	destroyed(t, func(w *world, server, client, destroyer *actor) {
		listener := server.listen(at(7000))
		c := client.dial(at(7000))
		s := server.accept(listener)
		server.deaf(s)
		client.close(c)
		destroyer.destroy(c)
		server.abandon(s)
		dying := w.startActor("dying", 1)
		orphan, to := orphanOf(w, dying, server)
		destroyer.destroy(orphan)
		server.abandon(to)
	})
}

func TestOwner_DestroyConnecting(t *testing.T) {
	destroyed(t, func(_ *world, server, client, destroyer *actor) {
		server.listen(at(7000), server.deaf)
		c := client.socket(loopback, unix.IPPROTO_TCP)
		client.must(unix.SYS_FCNTL, client.fd(c), unix.F_SETFL, unix.O_NONBLOCK)
		_ = client.tryConnect(c, at(7000))
		client.awaitState(c, tcplab.SynSent)
		c.peer = at(7000)
		destroyer.destroy(c)
		client.awaitState(c, tcplab.Close)
	})
}

// The children in the queue die with the listener: they are its holder's at most.
func TestOwner_DestroyListener(t *testing.T) {
	destroyed(t, func(w *world, server, client, destroyer *actor) {
		listener := server.listen(at(7000))
		waiting := client.dial(at(7000))
		first := server.accept(listener)
		c := client.dial(at(7000))
		w.unaccepted(listener, c)
		destroyer.destroy(listener)
		client.awaitState(c, tcplab.Close)
		inOrder(client, waiting, server, first, true)
	})
}

func TestOwner_DestroyTimewait(t *testing.T) {
	destroyed(t, func(w *world, server, client, destroyer *actor) {
		listener := server.listen(at(7000))
		c := client.dial(at(7000))
		s := server.accept(listener)
		inOrder(client, c, server, s, true)
		w.n.Settle(1)
		destroyer.destroy(c)
		d := client.socket(loopback, unix.IPPROTO_TCP)
		client.bind(d, c.local) // free again
		client.connect(d, at(7000))
		inOrder(client, d, server, server.accept(listener), false)
	})
}
