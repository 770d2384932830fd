package kernel_test

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// A process that execs keeps its sockets and its pid, and comm is the new name, also
// for events in softirq.
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

// exec closes sockets that are marked close-on-exec. The process owns them at that
// moment.
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

// A server forks a child, which execs, as inetd and sshd do. The child owns the
// connection under its new name.
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

// comm is the name that the process has at the event, also for events in softirq.
func TestOwner_CommAtEvent(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		owner, peer := env.StartActor("first-name", 1), env.StartActor("peer", 1)
		g := harness.ConnectBoth(env, owner, peer)
		owner.Rename("second-name")
		peer.Close(g.ClientPeer, g.ChildPeer)
		for _, s := range []*harness.Socket{g.Client, g.Child} {
			owner.AwaitState(s, tcplab.CloseWait)
		}
		owner.Rename("third-name")
		owner.Close(g.Client, g.Child)
	})
}

// comm is the name of the process, even if a thread with another name makes all calls.
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

// The thread that opened the socket exits before the peer closes. The process is still
// the owner.
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

// The thread group leader exits (pthread_exit in main) and other threads go on. The
// process still owns its sockets, under the leader's name, because its threads have the
// descriptors.
func TestOwner_ThreadGroupLeaderExits(t *testing.T) {
	for _, leaderOpened := range []bool{false, true} {
		t.Run(fmt.Sprintf("leader opened them %v", leaderOpened), func(t *testing.T) {
			harness.Run(t, func(env *harness.Env) {
				owner, peer := env.StartActor("leaderless", 2), env.StartActor("peer", 1)
				owner.Threads[1].Rename("not-the-leader")
				if !leaderOpened {
					owner.ExitThread()
				}
				g := harness.ConnectBoth(env, owner, peer)
				if leaderOpened {
					owner.ExitThread()
				}
				peer.Close(g.ClientPeer, g.ChildPeer)
				for _, s := range []*harness.Socket{g.Client, g.Child} {
					owner.AwaitState(s, tcplab.CloseWait)
					owner.Close(s)
				}
			})
		})
	}
}

// A thread that is not the leader execs. It becomes the leader, with the pid and the
// sockets of the process.
func TestOwner_ExecByThread(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		owner, peer := env.StartActor("before-exec", 2), env.StartActor("peer", 1)
		g := harness.ConnectBoth(env, owner, peer)
		owner.Threads[1].Exec("after-exec")
		owner.Shutdown(g.Client, unix.SHUT_WR)
		owner.Shutdown(g.Child, unix.SHUT_WR)
		peer.Close(g.ClientPeer, g.ChildPeer)
		for _, s := range []*harness.Socket{g.Client, g.Child} {
			owner.AwaitState(s, tcplab.Close)
			owner.Close(s)
		}
	})
}

// Two processes share one descriptor table (CLONE_FILES without CLONE_THREAD). Both own
// the socket until one of them exits.
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

// pid is the number in the initial pid namespace, also for a process in another one.
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
