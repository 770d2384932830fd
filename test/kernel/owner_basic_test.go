package kernel_test

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// The client process owns the client socket and the server process the child. On
// loopback the softirqs of each socket run while the other process is on the CPU.
func TestOwner_BothSides(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			harness.Run(t, func(env *harness.Env) {
				server, client := env.ServerAndClient()
				to := netip.AddrPortFrom(netip.MustParseAddr(host), 7000)
				listener := server.Listen(to)
				for _, clientFirst := range []bool{true, false} {
					c := client.Dial(to)
					s := server.Accept(listener)
					client.Write(c, "question")
					server.Read(s)
					server.Write(s, "answer")
					client.Read(c)
					harness.CloseInOrder(client, c, server, s, clientFirst)
				}
				server.Close(listener)
			})
		})
	}
}

// A process that exits or is killed closes its sockets itself as it dies. It owns them
// up to the last transition.
func TestOwner_ProcessDies(t *testing.T) {
	ways := map[string]func(*harness.Actor){"killed": (*harness.Actor).Kill, "exits": (*harness.Actor).Exit}
	for how, end := range ways {
		t.Run("the client "+how, func(t *testing.T) {
			harness.Run(t, func(env *harness.Env) {
				server, client := env.ServerAndClient()
				listener := server.Listen(harness.At(7000))
				client.Dial(harness.At(7000))
				s := server.Accept(listener)
				end(client)
				server.AwaitState(s, tcplab.CloseWait)
				server.Close(s)
			})
		})
		t.Run("the server "+how, func(t *testing.T) {
			harness.Run(t, func(env *harness.Env) {
				server, client := env.ServerAndClient()
				listener := server.Listen(harness.At(7000))
				c := client.Dial(harness.At(7000))
				server.Accept(listener)
				end(server)
				client.AwaitState(c, tcplab.CloseWait)
				client.Close(c)
			})
		})
	}
}

// A reset from one side ends the other side's socket in softirq, while the sender is on
// the CPU. Each side still belongs to its own process.
func TestOwner_Reset(t *testing.T) {
	endings := map[string]func(a *harness.Actor, s *harness.Socket){
		"linger 0":    func(a *harness.Actor, s *harness.Socket) { a.LingerZero(s); a.Close(s) },
		"disconnect":  func(a *harness.Actor, s *harness.Socket) { a.Disconnect(s) },
		"unread data": func(a *harness.Actor, s *harness.Socket) { a.Close(s) },
	}
	for name, ending := range endings {
		for _, clientFirst := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s client first %v", name, clientFirst), func(t *testing.T) {
				harness.Run(t, func(env *harness.Env) {
					server, client := env.ServerAndClient()
					listener := server.Listen(harness.At(7000))
					c := client.Dial(harness.At(7000))
					s := server.Accept(listener)
					server.Write(s, "unread")
					client.Write(c, "unread")
					if clientFirst {
						ending(client, c)
						server.AwaitState(s, tcplab.Close)
					} else {
						ending(server, s)
						client.AwaitState(c, tcplab.Close)
					}
				})
			})
		}
	}
}

// A refused connection belongs to the process that tried. The refusal comes in softirq,
// on loopback inside connect().
func TestOwner_RefusedConnect(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		client := env.StartActor("refused", 1)
		s := client.Socket(harness.LoopbackAddr, unix.IPPROTO_TCP)
		if err := client.TryConnect(s, harness.At(7999)); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("connect() to a closed port: %v, want %v", err, unix.ECONNREFUSED)
		}
		client.Close(s)
	})
}

// uid is the user of the process that made the socket, or that accepted it, even if
// that process changes its user later.
func TestOwner_UID(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		server, client := env.ServerAndClient()
		server.SetUID(1002)
		client.SetUID(1001)
		listener := server.Listen(harness.At(7000))
		worker := server.Fork("a-worker", 0, 0)
		c := client.Dial(harness.At(7000))
		s := worker.Accept(listener)
		harness.CloseInOrder(client, c, worker, s, true)
	})
}

// cgroup is the cgroup of the owner at the time of the event: not the one in which it
// made the socket, and not the one of the other side.
func TestOwner_Cgroup(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		server, client := env.ServerAndClient()
		env.RequireCgroups()
		server.MoveToCgroup("server")
		client.MoveToCgroup("client")
		listener := server.Listen(harness.At(7000))
		c := client.Dial(harness.At(7000))
		s := server.Accept(listener)
		client.MoveToCgroup("client-moved")
		harness.CloseInOrder(client, c, server, s, false)
		c = client.Dial(harness.At(7000))
		s = server.Accept(listener)
		harness.CloseInOrder(client, c, server, s, true)
	})
}
