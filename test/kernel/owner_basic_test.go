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

// The client's socket is the client's and the child the server's, although on
// loopback each one's softirqs run while the other is on the CPU.
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

// A process killed with -9, or that exits with everything open, closes its sockets
// itself as it dies: they are its own to the last transition.
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

// The reset that one side sends ends the other side's socket in softirq, while the
// sender is on the CPU: each is still its own process's.
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

// A connection that fails is that of the process that tried: the refusal comes in
// softirq, on loopback inside its own connect().
func TestOwner_RefusedConnect(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		client := env.StartActor("refused", 1)
		s := client.Socket(harness.LoopbackAddr, unix.IPPROTO_TCP)
		if err := client.TryConnect(s, harness.At(7999)); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("connect: %v, want %v", err, unix.ECONNREFUSED)
		}
		client.Close(s)
	})
}

// uid is the socket's: of the process that made it, and for an accepted one of the
// process that accepted it, whoever that process has become since.
func TestOwner_UID(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		server, client := env.ServerAndClient()
		server.Become(1002)
		client.Become(1001)
		listener := server.Listen(harness.At(7000))
		worker := server.Fork("a-worker", 0, 0)
		c := client.Dial(harness.At(7000))
		s := worker.Accept(listener)
		harness.CloseInOrder(client, c, worker, s, true)
	})
}

// cgroup is the one that the owner is in: where it has been moved to, and not where
// it was when it made the socket, nor where the other side is.
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
