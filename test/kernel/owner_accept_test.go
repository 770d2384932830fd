package kernel_test

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// Four workers accept from one listener, which their parent opened and keeps. Until
// a worker has closed or shut down its connection the parent is a right answer, but
// only as pid_source listener; from then on only that worker is.
func TestOwner_PreforkServer(t *testing.T) {
	for _, clientFirst := range []bool{true, false} {
		t.Run(fmt.Sprintf("client first %v", clientFirst), func(t *testing.T) {
			play(t, func(w *world) {
				parent, client := w.pair()
				listener := parent.listen(at(7000))
				var clients, children []*sock
				workers := parent.workers(4)
				for i := range 8 {
					worker := workers[i%4]
					clients = append(clients, client.dial(at(7000)))
					children = append(children, worker.accept(listener))
					client.write(clients[i], "question")
					worker.read(children[i])
				}
				for i := range 8 {
					inOrder(client, clients[i], workers[i%4], children[i], clientFirst)
				}
			})
		})
	}
}

func (a *actor) workers(count int) []*actor {
	a.w.t.Helper()
	var workers []*actor
	for i := range count {
		workers = append(workers, a.fork(fmt.Sprintf("worker-%d", i), 0, 0))
	}
	return workers
}

// The parent opens the listener, forks its workers, and dies or closes it: it is no
// owner any more, neither of the listener nor of the connections to come.
func TestOwner_ListenerOpenerLeaves(t *testing.T) {
	ways := map[string]func(*actor, *sock){
		"closes": func(a *actor, s *sock) { a.close(s) },
		"dies":   func(a *actor, _ *sock) { a.kill() },
	}
	for how, leave := range ways {
		t.Run(how, func(t *testing.T) {
			play(t, func(w *world) {
				parent, client := w.pair()
				listener := parent.listen(at(7000))
				worker := parent.fork("worker", 0, 0)
				before := client.dial(at(7000))
				leave(parent, listener)
				after := client.dial(at(7000))
				for _, c := range []*sock{before, after} {
					s := worker.accept(listener)
					inOrder(client, c, worker, s, c == before)
				}
				worker.close(listener)
			})
		})
	}
}

// Each worker has a listener of its own on the same port: a connection is that of
// the worker whose listener got it, from its first transition on.
func TestOwner_ReuseportWorkers(t *testing.T) {
	play(t, func(w *world) {
		client := w.startActor("a-client", 1)
		var workers []*actor
		var listeners []*sock
		for i := range 4 {
			worker := w.startActor(fmt.Sprintf("reuseport-%d", i), 1)
			workers = append(workers, worker)
			listeners = append(listeners, worker.listen(at(7000), worker.reusePort))
		}
		for i := range 16 {
			c := client.dial(at(7000))
			worker, listener := ready(w, workers, listeners)
			s := worker.accept(listener)
			inOrder(client, c, worker, s, i%2 == 0)
		}
	})
}

func (th *thread) reusePort(s *sock) {
	th.setInt(s, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
}

// ready is whose listener has a connection.
func ready(w *world, workers []*actor, listeners []*sock) (worker *actor, listener *sock) {
	w.t.Helper()
	w.await("connection to accept", func() bool {
		for i := range workers {
			if workers[i].readable(listeners[i]) {
				worker, listener = workers[i], listeners[i]
			}
		}
		return worker != nil
	})
	return worker, listener
}

func (th *thread) readable(s *sock) bool {
	th.a.w.t.Helper()
	o := th.order(unix.SYS_PPOLL)
	poll := unix.PollFd{Fd: int32(th.a.fd(s)), Events: unix.POLLIN}
	var atOnce unix.Timespec
	n, err := o.do(o.put(bytesOf(&poll)), 1, o.put(bytesOf(&atOnce)), 0)
	th.a.w.must(th.a, unix.SYS_PPOLL, err)
	return n > 0
}

// inetd, sshd: the parent accepts, forks, and closes its copy; the child serves.
// The child is right from the fork on, the parent up to its close; as the listener's
// holder it may be named (pid_source listener) until the child has operated.
func TestOwner_AcceptedForChild(t *testing.T) {
	for _, withIO := range []bool{false, true} {
		for _, clientFirst := range []bool{true, false} {
			t.Run(fmt.Sprintf("child has done I/O %v, client first %v", withIO, clientFirst), func(t *testing.T) {
				play(t, func(w *world) {
					parent, client := w.pair()
					listener := parent.listen(at(7000))
					c := client.dial(at(7000))
					s := parent.accept(listener)
					child := parent.fork("child", 0, 0)
					parent.close(s)
					child.close(listener)
					if withIO {
						client.write(c, "question")
						child.read(s)
						child.write(s, "answer")
						client.read(c)
					}
					inOrder(client, c, child, s, clientFirst)
				})
			})
		}
	}
}

// As above, but the parent has shut the connection's sending side down, which makes
// it the one that is known; it has then closed its copy and must not be named.
func TestOwner_ParentShutsDownForChild(t *testing.T) {
	play(t, func(w *world) {
		parent, client := w.pair()
		listener := parent.listen(at(7000))
		c := client.dial(at(7000))
		s := parent.accept(listener)
		child := parent.fork("child", 0, 0)
		parent.shutdown(s, unix.SHUT_WR)
		parent.close(s)
		client.awaitState(c, tcplab.CloseWait)
		client.close(c)
		child.awaitState(s, tcplab.Close)
	})
}

// A child that nobody accepts dies with its listener, whose holder is the only one
// that may be named.
func TestOwner_UnacceptedChild(t *testing.T) {
	ways := map[string]func(*actor, *sock){
		"closed":    func(a *actor, s *sock) { a.close(s) },
		"shut down": func(a *actor, s *sock) { a.shutdown(s, unix.SHUT_RDWR) },
		"dead":      func(a *actor, _ *sock) { a.kill() },
	}
	for how, end := range ways {
		t.Run("listener "+how, func(t *testing.T) {
			play(t, func(w *world) {
				server, client := w.pair()
				listener := server.listen(at(7000))
				c := client.dial(at(7000))
				w.unaccepted(listener, c)
				end(server, listener)
				client.awaitState(c, tcplab.Close)
			})
		})
	}
}

// The listener goes to another process and its opener closes it. Connections that
// come then are not the opener's; those that came before are not either, any more.
func TestOwner_PassedListener(t *testing.T) {
	for _, operates := range []bool{false, true} {
		t.Run(fmt.Sprintf("receiver listens anew %v", operates), func(t *testing.T) {
			play(t, func(w *world) {
				opener, client := w.pair()
				receiver := w.startActor("receiver", 1)
				listener := opener.listen(at(7000))
				before := client.dial(at(7000))
				opener.pass(listener, receiver, true)
				if operates {
					receiver.startListening(listener) // changes its backlog and no state
				}
				after := client.dial(at(7000))
				for _, c := range []*sock{before, after} {
					s := receiver.accept(listener)
					inOrder(client, c, receiver, s, c == before)
				}
			})
		})
	}
}
