package kernel_test

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// Four workers accept from one listener, which their parent opened and keeps. Until
// a worker has closed or shut down its connection the parent is a right answer, but
// only as pid_source listener; from then on only that worker is.
func TestOwner_PreforkServer(t *testing.T) {
	for _, clientFirst := range []bool{true, false} {
		t.Run(fmt.Sprintf("client first %v", clientFirst), func(t *testing.T) {
			harness.Run(t, func(env *harness.Env) {
				parent, client := env.ServerAndClient()
				listener := parent.Listen(harness.At(7000))
				var clients, children []*harness.Socket
				workers := parent.Workers(4)
				for i := range 8 {
					worker := workers[i%4]
					clients = append(clients, client.Dial(harness.At(7000)))
					children = append(children, worker.Accept(listener))
					client.Write(clients[i], "question")
					worker.Read(children[i])
				}
				for i := range 8 {
					harness.CloseInOrder(client, clients[i], workers[i%4], children[i], clientFirst)
				}
			})
		})
	}
}

// The parent opens the listener, forks its workers, and dies or closes it: it is no
// owner any more, neither of the listener nor of the connections to come.
func TestOwner_ListenerOpenerLeaves(t *testing.T) {
	ways := map[string]func(*harness.Actor, *harness.Socket){
		"closes": func(a *harness.Actor, s *harness.Socket) { a.Close(s) },
		"dies":   func(a *harness.Actor, _ *harness.Socket) { a.Kill() },
	}
	for how, leave := range ways {
		t.Run(how, func(t *testing.T) {
			harness.Run(t, func(env *harness.Env) {
				parent, client := env.ServerAndClient()
				listener := parent.Listen(harness.At(7000))
				worker := parent.Fork("worker", 0, 0)
				before := client.Dial(harness.At(7000))
				leave(parent, listener)
				after := client.Dial(harness.At(7000))
				for _, c := range []*harness.Socket{before, after} {
					s := worker.Accept(listener)
					harness.CloseInOrder(client, c, worker, s, c == before)
				}
				worker.Close(listener)
			})
		})
	}
}

// Each worker has a listener of its own on the same port: a connection is that of
// the worker whose listener got it, from its first transition on.
func TestOwner_ReuseportWorkers(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		client := env.StartActor("a-client", 1)
		var workers []*harness.Actor
		var listeners []*harness.Socket
		for i := range 4 {
			worker := env.StartActor(fmt.Sprintf("reuseport-%d", i), 1)
			workers = append(workers, worker)
			listeners = append(listeners, worker.Listen(harness.At(7000), worker.ReusePort))
		}
		for i := range 16 {
			c := client.Dial(harness.At(7000))
			worker, listener := harness.AwaitConnection(env, workers, listeners)
			s := worker.Accept(listener)
			harness.CloseInOrder(client, c, worker, s, i%2 == 0)
		}
	})
}

// inetd, sshd: the parent accepts, forks, and closes its copy; the child serves.
// The child is right from the fork on, the parent up to its close; as the listener's
// holder it may be named (pid_source listener) until the child has operated.
func TestOwner_AcceptedForChild(t *testing.T) {
	for _, withIO := range []bool{false, true} {
		for _, clientFirst := range []bool{true, false} {
			t.Run(fmt.Sprintf("child has done I/O %v, client first %v", withIO, clientFirst), func(t *testing.T) {
				harness.Run(t, func(env *harness.Env) {
					parent, client := env.ServerAndClient()
					listener := parent.Listen(harness.At(7000))
					c := client.Dial(harness.At(7000))
					s := parent.Accept(listener)
					child := parent.Fork("child", 0, 0)
					parent.Close(s)
					child.Close(listener)
					if withIO {
						client.Write(c, "question")
						child.Read(s)
						child.Write(s, "answer")
						client.Read(c)
					}
					harness.CloseInOrder(client, c, child, s, clientFirst)
				})
			})
		}
	}
}

// As above, but the parent has shut the connection's sending side down, which makes
// it the one that is known; it has then closed its copy and must not be named.
func TestOwner_ParentShutsDownForChild(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		parent, client := env.ServerAndClient()
		listener := parent.Listen(harness.At(7000))
		c := client.Dial(harness.At(7000))
		s := parent.Accept(listener)
		child := parent.Fork("child", 0, 0)
		parent.Shutdown(s, unix.SHUT_WR)
		parent.Close(s)
		client.AwaitState(c, tcplab.CloseWait)
		client.Close(c)
		child.AwaitState(s, tcplab.Close)
	})
}

// A child that nobody accepts dies with its listener, whose holder is the only one
// that may be named.
func TestOwner_UnacceptedChild(t *testing.T) {
	ways := map[string]func(*harness.Actor, *harness.Socket){
		"closed":    func(a *harness.Actor, s *harness.Socket) { a.Close(s) },
		"shut down": func(a *harness.Actor, s *harness.Socket) { a.Shutdown(s, unix.SHUT_RDWR) },
		"dead":      func(a *harness.Actor, _ *harness.Socket) { a.Kill() },
	}
	for how, end := range ways {
		t.Run("listener "+how, func(t *testing.T) {
			harness.Run(t, func(env *harness.Env) {
				server, client := env.ServerAndClient()
				listener := server.Listen(harness.At(7000))
				c := client.Dial(harness.At(7000))
				env.NoteUnaccepted(listener, c)
				end(server, listener)
				client.AwaitState(c, tcplab.Close)
			})
		})
	}
}

// The listener goes to another process and its opener closes it. Connections that
// come then are not the opener's; those that came before are not either, any more.
func TestOwner_PassedListener(t *testing.T) {
	for _, operates := range []bool{false, true} {
		t.Run(fmt.Sprintf("receiver listens anew %v", operates), func(t *testing.T) {
			harness.Run(t, func(env *harness.Env) {
				opener, client := env.ServerAndClient()
				receiver := env.StartActor("receiver", 1)
				listener := opener.Listen(harness.At(7000))
				before := client.Dial(harness.At(7000))
				opener.PassFD(listener, receiver, true)
				if operates {
					receiver.StartListening(listener) // changes its backlog and no state
				}
				after := client.Dial(harness.At(7000))
				for _, c := range []*harness.Socket{before, after} {
					s := receiver.Accept(listener)
					harness.CloseInOrder(client, c, receiver, s, c == before)
				}
			})
		})
	}
}
