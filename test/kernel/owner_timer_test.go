package kernel_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// What a timer does to a socket it does on whatever process is on the CPU: the owner
// is who has the socket all the same.
func TestOwner_Timer(t *testing.T) {
	play(t, func(w *world) {
		server, client := w.pair()
		listener := server.listen(at(7000))
		c := client.dial(at(7000))
		s := server.accept(listener)
		server.deaf(s)
		client.setInt(c, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 1)
		client.write(c, "lost")
		client.awaitState(c, tcplab.Close) // ETIMEDOUT, by the retransmission timer
		server.abandon(s)
	})
}

// The attempt succeeds by the SYN's retransmission, a second after connect() came back.
func TestOwner_LateConnect(t *testing.T) {
	play(t, func(w *world) {
		server, client := w.pair()
		listener := server.listen(at(7000), server.deaf)
		c := client.socket(loopback, unix.IPPROTO_TCP)
		client.must(unix.SYS_FCNTL, client.fd(c), unix.F_SETFL, unix.O_NONBLOCK)
		_ = client.tryConnect(c, at(7000))
		client.awaitState(c, tcplab.SynSent)
		server.hear(listener)
		client.awaitState(c, tcplab.Established)
		s := server.accept(listener)
		inOrder(client, c, server, s, false)
	})
}

// A socket that connects to itself goes through a simultaneous open and close.
func TestOwner_SelfConnect(t *testing.T) {
	play(t, func(w *world) {
		client := w.startActor("self-connected", 1)
		s := client.socket(loopback, unix.IPPROTO_TCP)
		client.bind(s, at(7300))
		client.connect(s, at(7300))
		client.awaitState(s, tcplab.Established)
		client.close(s)
	})
}
