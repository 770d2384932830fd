package kernel_test

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// pair is a server and a client process, each under its own name.
func (w *world) pair() (server, client *actor) {
	w.t.Helper()
	return w.startActor("a-server", 1), w.startActor("a-client", 1)
}

// The client's socket is the client's and the child the server's, although on
// loopback each one's softirqs run while the other is on the CPU.
func TestOwner_BothSides(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			play(t, func(w *world) {
				server, client := w.pair()
				to := netip.AddrPortFrom(netip.MustParseAddr(host), 7000)
				listener := server.listen(to)
				for _, clientFirst := range []bool{true, false} {
					c := client.dial(to)
					s := server.accept(listener)
					client.write(c, "question")
					server.read(s)
					server.write(s, "answer")
					client.read(c)
					inOrder(client, c, server, s, clientFirst)
				}
				server.close(listener)
			})
		})
	}
}

// inOrder closes both ends, one after the other.
func inOrder(client *actor, c *sock, server *actor, s *sock, clientFirst bool) {
	client.w.t.Helper()
	if clientFirst {
		client.close(c)
		server.awaitState(s, tcplab.CloseWait)
		server.close(s)
	} else {
		server.close(s)
		client.awaitState(c, tcplab.CloseWait)
		client.close(c)
	}
}

// A process killed with -9, or that exits with everything open, closes its sockets
// itself as it dies: they are its own to the last transition.
func TestOwner_ProcessDies(t *testing.T) {
	ways := map[string]func(*actor){"killed": (*actor).kill, "exits": (*actor).exit}
	for how, end := range ways {
		t.Run("the client "+how, func(t *testing.T) {
			play(t, func(w *world) {
				server, client := w.pair()
				listener := server.listen(at(7000))
				client.dial(at(7000))
				s := server.accept(listener)
				end(client)
				server.awaitState(s, tcplab.CloseWait)
				server.close(s)
			})
		})
		t.Run("the server "+how, func(t *testing.T) {
			play(t, func(w *world) {
				server, client := w.pair()
				listener := server.listen(at(7000))
				c := client.dial(at(7000))
				server.accept(listener)
				end(server)
				client.awaitState(c, tcplab.CloseWait)
				client.close(c)
			})
		})
	}
}

// The reset that one side sends ends the other side's socket in softirq, while the
// sender is on the CPU: each is still its own process's.
func TestOwner_Reset(t *testing.T) {
	endings := map[string]func(a *actor, s *sock){
		"linger 0":    func(a *actor, s *sock) { a.lingerZero(s); a.close(s) },
		"disconnect":  func(a *actor, s *sock) { a.disconnect(s) },
		"unread data": func(a *actor, s *sock) { a.close(s) },
	}
	for name, ending := range endings {
		for _, clientFirst := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s client first %v", name, clientFirst), func(t *testing.T) {
				play(t, func(w *world) {
					server, client := w.pair()
					listener := server.listen(at(7000))
					c := client.dial(at(7000))
					s := server.accept(listener)
					server.write(s, "unread")
					client.write(c, "unread")
					if clientFirst {
						ending(client, c)
						server.awaitState(s, tcplab.Close)
					} else {
						ending(server, s)
						client.awaitState(c, tcplab.Close)
					}
				})
			})
		}
	}
}

func (th *thread) lingerZero(s *sock) {
	th.a.w.t.Helper()
	th.setsockopt(s, unix.SOL_SOCKET, unix.SO_LINGER, bytesOf(&unix.Linger{Onoff: 1}))
}

// A connection that fails is that of the process that tried: the refusal comes in
// softirq, on loopback inside its own connect().
func TestOwner_RefusedConnect(t *testing.T) {
	play(t, func(w *world) {
		client := w.startActor("refused", 1)
		s := client.socket(loopback, unix.IPPROTO_TCP)
		if err := client.tryConnect(s, at(7999)); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("connect: %v, want %v", err, unix.ECONNREFUSED)
		}
		client.close(s)
	})
}

// uid is the socket's: of the process that made it, and for an accepted one of the
// process that accepted it, whoever that process has become since.
func TestOwner_UID(t *testing.T) {
	play(t, func(w *world) {
		server, client := w.pair()
		server.become(1002)
		client.become(1001)
		listener := server.listen(at(7000))
		worker := server.fork("a-worker", 0, 0)
		c := client.dial(at(7000))
		s := worker.accept(listener)
		inOrder(client, c, worker, s, true)
	})
}

// become changes the user of the thread, which is all there is to this process.
func (a *actor) become(uid int) {
	a.w.t.Helper()
	a.must(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid))
	a.uid = uid
}

// cgroup is the one that the owner is in: where it has been moved to, and not where
// it was when it made the socket, nor where the other side is.
func TestOwner_Cgroup(t *testing.T) {
	play(t, func(w *world) {
		server, client := w.pair()
		w.requireCgroups()
		server.moveToCgroup("server")
		client.moveToCgroup("client")
		listener := server.listen(at(7000))
		c := client.dial(at(7000))
		s := server.accept(listener)
		client.moveToCgroup("client-moved")
		inOrder(client, c, server, s, false)
		c = client.dial(at(7000))
		s = server.accept(listener)
		inOrder(client, c, server, s, true)
	})
}
