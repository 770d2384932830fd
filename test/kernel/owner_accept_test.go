package kernel_test

import (
	"fmt"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// Four workers accept from a listener that their parent opened and keeps open. Until a
// worker shuts down or closes its connection, the parent is also a right owner, but
// only with pid_source listener. After that only the worker is.
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

// The parent opens the listener, forks a worker, and closes the listener or dies. After
// that it owns neither the listener nor new connections.
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

// Each worker has its own listener on the same port. A connection belongs to the worker
// whose listener received it, from its first transition on.
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

// The parent accepts, forks and closes its descriptor, and the child serves, as in
// inetd and sshd. The child is a right owner from the fork on, the parent until its
// close. The parent may be named with pid_source listener until the child has operated
// on the connection.
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

// The parent shuts down the sending side, so that it is the stored owner, and closes
// its descriptor. After that only the child may be named.
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

// A child that no process accepts dies with its listener. Only the process that has the
// listener open may be named.
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

// The opener passes the listener to another process and closes it. After that the
// opener owns neither new connections nor those in the queue.
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
					receiver.StartListening(listener) // changes the backlog, not the state
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

// Two threads wait in accept(), each with a descriptor of its own, beyond those that are
// searched. Both connections belong to the process at once, not only when it closes them.
func TestOwner_ThreadsWaitInAccept(t *testing.T) {
	env := harness.NewEnv(t)
	env.UseSharedTracers()
	server, client := env.StartActor("server", 3), env.StartActor("client", 1)
	server.FillDescriptors(100)
	listener := server.Listen(harness.At(7000))
	from := harness.Now()
	var orders []*harness.Order
	for _, th := range server.Threads[1:] {
		o := th.Order(unix.SYS_ACCEPT4)
		o.Send(server.FD(listener), 0, 0, 0)
		th.AwaitCall(unix.SYS_ACCEPT4, server.FD(listener))
		orders = append(orders, o)
	}
	var accepted []*harness.Socket
	for i, th := range server.Threads[1:] { // the kernel wakes the first that waits
		c := client.Dial(harness.At(7000))
		fd, err := orders[i].Wait()
		if err != nil {
			t.Fatal(err)
		}
		s := th.Accepted(listener, fd, from)
		client.Close(c)
		server.AwaitState(s, tcplab.CloseWait)
		accepted = append(accepted, s)
	}
	server.Close(accepted...)
	env.Finish()
	for i, lines := range env.Collect() {
		env.Tracer = env.Captures[i].Tracer
		if env.Has(probe.AcceptHook) {
			for _, s := range accepted {
				checkSources(t, harness.RecordsWith(lines, "transition", cookieOf(t, s)))
			}
		}
	}
}

// checkSources checks how the owner of an accepted connection is known, from its creation to
// its end. The last acknowledgment may arrive within close() or after it.
func checkSources(t *testing.T, lines []harness.Record) {
	t.Helper()
	want := []string{
		"SYN_RECV by listener", "ESTABLISHED by listener", "CLOSE_WAIT by accept", "LAST_ACK by task", "CLOSE by task or stored",
	}
	var got []string
	for _, l := range lines {
		source := l.Source
		if l.New == "CLOSE" && (source == "task" || source == "stored") {
			source = "task or stored"
		}
		got = append(got, l.New+" by "+source)
	}
	if !slices.Equal(got, want) {
		t.Errorf("owners %q, want %q", got, want)
	}
}

func cookieOf(t *testing.T, s *harness.Socket) uint64 {
	t.Helper()
	cookie, err := strconv.ParseUint(s.Conn, 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return cookie
}
