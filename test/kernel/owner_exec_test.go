package kernel_test

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// exec makes another program of the process that holds the socket: same pid, other
// name, and both are right from then on, also where the event comes in softirq.
func TestOwner_ExecKeepsSockets(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		before, peer := env.StartActor("before-exec", 1), env.StartActor("peer", 1)
		g := harness.ConnectBoth(env, before, peer)
		before.Exec("after-exec")
		peer.Close(g.ClientPeer, g.ChildPeer)
		for _, s := range []*harness.Socket{g.Client, g.Child} {
			before.AwaitState(s, tcplab.CloseWait)
			before.Close(s)
		}
	})
}

// What is marked close-on-exec is closed by the process as it execs, and nobody
// has it any more.
func TestOwner_CloseOnExec(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		before, peer := env.StartActor("before-exec", 1), env.StartActor("peer", 1)
		g := harness.ConnectBoth(env, before, peer)
		for _, s := range []*harness.Socket{g.Client, g.Child} {
			before.CloseOnExec(s)
		}
		before.Exec("after-exec")
		peer.AwaitState(g.ClientPeer, tcplab.CloseWait)
		peer.AwaitState(g.ChildPeer, tcplab.CloseWait)
	})
}

// fork and exec, as inetd and ssh do it: the child serves under its own name.
func TestOwner_ForkExecServer(t *testing.T) {
	for _, operates := range []bool{false, true} {
		t.Run(fmt.Sprintf("child operates %v", operates), func(t *testing.T) {
			harness.Run(t, func(env *harness.Env) {
				parent, client := env.ServerAndClient()
				listener := parent.Listen(harness.At(7000))
				c := client.Dial(harness.At(7000))
				s := parent.Accept(listener)
				child := parent.Fork("", 0, 0)
				parent.Close(s)
				child.Close(listener)
				child.Exec("served-by")
				if operates {
					child.Shutdown(s, unix.SHUT_WR)
				}
				client.Close(c)
				child.AwaitState(s, tcplab.CloseWait, tcplab.Close)
				child.Close(s)
			})
		})
	}
}

// A process may take another name at any time: comm is the one that it has at the
// event, also where the event comes in softirq.
func TestOwner_CommAtEvent(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		holder, peer := env.StartActor("first-name", 1), env.StartActor("peer", 1)
		g := harness.ConnectBoth(env, holder, peer)
		holder.Rename("second-name")
		peer.Close(g.ClientPeer, g.ChildPeer)
		for _, s := range []*harness.Socket{g.Client, g.Child} {
			holder.AwaitState(s, tcplab.CloseWait)
		}
		holder.Rename("third-name")
		holder.Close(g.Client, g.Child)
	})
}

// comm is the process's name although a thread with another one does it all.
func TestOwner_CommOfProcessNotThread(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		server, client := env.StartActor("server-process", 2), env.StartActor("client-process", 2)
		server.Threads[1].Rename("server-thread")
		client.Threads[1].Rename("client-thread")
		listener := server.Threads[1].Listen(harness.At(7000))
		for _, clientFirst := range []bool{true, false} {
			c := client.Threads[1].Dial(harness.At(7000))
			s := server.Threads[1].Accept(listener)
			if clientFirst {
				client.Threads[1].Close(c)
				server.AwaitState(s, tcplab.CloseWait)
				server.Threads[1].Close(s)
			} else {
				server.Threads[1].Close(s)
				client.AwaitState(c, tcplab.CloseWait)
				client.Threads[1].Close(c)
			}
		}
	})
}

// The thread that opened the socket has ended before the peer closes: the process
// has it all the same.
func TestOwner_OpeningThreadExits(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		server, client := env.StartActor("server-process", 2), env.StartActor("client-process", 2)
		listener := server.Threads[1].Listen(harness.At(7000))
		c := client.Threads[1].Dial(harness.At(7000))
		s := server.Threads[1].Accept(listener)
		client.Threads[1].ExitThread()
		server.Threads[1].ExitThread()
		d := client.Dial(harness.At(7000))
		harness.CloseInOrder(client, d, server, server.Accept(listener), true)
		harness.CloseInOrder(client, c, server, s, false)
	})
}

// The leader has ended (pthread_exit in main) and the others go on: the process is
// the same and has its leader's name, and it can be known, since its threads have
// the descriptors.
func TestOwner_ThreadGroupLeaderExits(t *testing.T) {
	for _, leaderOpened := range []bool{false, true} {
		t.Run(fmt.Sprintf("leader opened them %v", leaderOpened), func(t *testing.T) {
			harness.Run(t, func(env *harness.Env) {
				holder, peer := env.StartActor("leaderless", 2), env.StartActor("peer", 1)
				holder.Threads[1].Rename("not-the-leader")
				if !leaderOpened {
					holder.ExitThread()
				}
				g := harness.ConnectBoth(env, holder, peer)
				if leaderOpened {
					holder.ExitThread()
				}
				peer.Close(g.ClientPeer, g.ChildPeer)
				for _, s := range []*harness.Socket{g.Client, g.Child} {
					holder.AwaitState(s, tcplab.CloseWait)
					holder.Close(s)
				}
			})
		})
	}
}

// A thread that is not the leader execs: it becomes the leader, with the pid and
// the sockets of the one that was.
func TestOwner_ExecByThread(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		holder, peer := env.StartActor("before-exec", 2), env.StartActor("peer", 1)
		g := harness.ConnectBoth(env, holder, peer)
		holder.Threads[1].Exec("after-exec")
		holder.Shutdown(g.Client, unix.SHUT_WR)
		holder.Shutdown(g.Child, unix.SHUT_WR)
		peer.Close(g.ClientPeer, g.ChildPeer)
		for _, s := range []*harness.Socket{g.Client, g.Child} {
			holder.AwaitState(s, tcplab.Close)
			holder.Close(s)
		}
	})
}

// Two processes that share one table of descriptors (clone with CLONE_FILES and
// nothing else): both have the socket, until one of them is gone.
func TestOwner_SharedDescriptorTable(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		one, peer := env.StartActor("one", 1), env.StartActor("peer", 1)
		other := one.Fork("other", unix.CLONE_FILES, 0)
		g := harness.ConnectBoth(env, other, peer)
		other.Kill()
		peer.Close(g.ClientPeer, g.ChildPeer)
		for _, s := range []*harness.Socket{g.Client, g.Child} {
			one.AwaitState(s, tcplab.CloseWait)
			one.Close(s)
		}
	})
}

// A process in a pid namespace of its own has another number there; records have
// that of the initial one.
func TestOwner_InitialPIDNamespace(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		server, outer := env.ServerAndClient()
		client := outer.Fork("in-own-pidns", unix.CLONE_NEWPID, 0)
		listener := server.Listen(harness.At(7000))
		for _, clientFirst := range []bool{true, false} {
			c := client.Dial(harness.At(7000))
			harness.CloseInOrder(client, c, server, server.Accept(listener), clientFirst)
		}
	})
}
