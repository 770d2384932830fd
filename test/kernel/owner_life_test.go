package kernel_test

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// exec makes another program of the process that holds the socket: same pid, other
// name, and both are right from then on, also where the event comes in softirq.
func TestOwner_ExecKeepsSockets(t *testing.T) {
	play(t, func(w *world) {
		before, peer := w.startActor("before-exec", 1), w.startActor("peer", 1)
		g := connectBoth(w, before, peer)
		before.exec("after-exec")
		peer.close(g.toOther, g.toChild)
		for _, s := range []*sock{g.client, g.child} {
			before.awaitState(s, tcplab.CloseWait)
			before.close(s)
		}
	})
}

// What is marked close-on-exec is closed by the process as it execs, and nobody
// has it any more.
func TestOwner_CloseOnExec(t *testing.T) {
	play(t, func(w *world) {
		before, peer := w.startActor("before-exec", 1), w.startActor("peer", 1)
		g := connectBoth(w, before, peer)
		for _, s := range []*sock{g.client, g.child} {
			before.closeOnExec(s)
		}
		before.exec("after-exec")
		peer.awaitState(g.toOther, tcplab.CloseWait)
		peer.awaitState(g.toChild, tcplab.CloseWait)
	})
}

func (a *actor) closeOnExec(s *sock) {
	a.w.t.Helper()
	fd := a.fd(s)
	a.must(unix.SYS_FCNTL, fd, unix.F_SETFD, unix.FD_CLOEXEC)
	a.table.slots[int(fd)] = slot{s: s, cloexec: true}
}

// fork and exec, as inetd and ssh do it: the child serves under its own name.
func TestOwner_ForkExecServer(t *testing.T) {
	for _, operates := range []bool{false, true} {
		t.Run(fmt.Sprintf("child operates %v", operates), func(t *testing.T) {
			play(t, func(w *world) {
				parent, client := w.pair()
				listener := parent.listen(at(7000))
				c := client.dial(at(7000))
				s := parent.accept(listener)
				child := parent.fork("", 0, 0)
				parent.close(s)
				child.close(listener)
				child.exec("served-by")
				if operates {
					child.shutdown(s, unix.SHUT_WR)
				}
				client.close(c)
				child.awaitState(s, tcplab.CloseWait, tcplab.Close)
				child.close(s)
			})
		})
	}
}

// A process may take another name at any time: comm is the one that it has at the
// event, also where the event comes in softirq.
func TestOwner_CommAtEvent(t *testing.T) {
	play(t, func(w *world) {
		holder, peer := w.startActor("first-name", 1), w.startActor("peer", 1)
		g := connectBoth(w, holder, peer)
		holder.rename("second-name")
		peer.close(g.toOther, g.toChild)
		for _, s := range []*sock{g.client, g.child} {
			holder.awaitState(s, tcplab.CloseWait)
		}
		holder.rename("third-name")
		holder.close(g.client, g.child)
	})
}

// comm is the process's name although a thread with another one does it all.
func TestOwner_CommOfProcessNotThread(t *testing.T) {
	play(t, func(w *world) {
		server, client := w.startActor("server-process", 2), w.startActor("client-process", 2)
		server.threads[1].rename("server-thread")
		client.threads[1].rename("client-thread")
		listener := server.threads[1].listen(at(7000))
		for _, clientFirst := range []bool{true, false} {
			c := client.threads[1].dial(at(7000))
			s := server.threads[1].accept(listener)
			if clientFirst {
				client.threads[1].close(c)
				server.awaitState(s, tcplab.CloseWait)
				server.threads[1].close(s)
			} else {
				server.threads[1].close(s)
				client.awaitState(c, tcplab.CloseWait)
				client.threads[1].close(c)
			}
		}
	})
}

// The thread that opened the socket has ended before the peer closes: the process
// has it all the same.
func TestOwner_OpeningThreadExits(t *testing.T) {
	play(t, func(w *world) {
		server, client := w.startActor("server-process", 2), w.startActor("client-process", 2)
		listener := server.threads[1].listen(at(7000))
		c := client.threads[1].dial(at(7000))
		s := server.threads[1].accept(listener)
		client.threads[1].exitThread()
		server.threads[1].exitThread()
		d := client.dial(at(7000))
		inOrder(client, d, server, server.accept(listener), true)
		inOrder(client, c, server, s, false)
	})
}

// The leader has ended (pthread_exit in main) and the others go on: the process is
// the same and has its leader's name, and it can be known, since its threads have
// the descriptors.
func TestOwner_ThreadGroupLeaderExits(t *testing.T) {
	for _, leaderOpened := range []bool{false, true} {
		t.Run(fmt.Sprintf("leader opened them %v", leaderOpened), func(t *testing.T) {
			play(t, func(w *world) {
				holder, peer := w.startActor("leaderless", 2), w.startActor("peer", 1)
				holder.threads[1].rename("not-the-leader")
				if !leaderOpened {
					holder.exitThread()
				}
				g := connectBoth(w, holder, peer)
				if leaderOpened {
					holder.exitThread()
				}
				peer.close(g.toOther, g.toChild)
				for _, s := range []*sock{g.client, g.child} {
					holder.awaitState(s, tcplab.CloseWait)
					holder.close(s)
				}
			})
		})
	}
}

// A thread that is not the leader execs: it becomes the leader, with the pid and
// the sockets of the one that was.
func TestOwner_ExecByThread(t *testing.T) {
	play(t, func(w *world) {
		holder, peer := w.startActor("before-exec", 2), w.startActor("peer", 1)
		g := connectBoth(w, holder, peer)
		holder.threads[1].exec("after-exec")
		holder.shutdown(g.client, unix.SHUT_WR)
		holder.shutdown(g.child, unix.SHUT_WR)
		peer.close(g.toOther, g.toChild)
		for _, s := range []*sock{g.client, g.child} {
			holder.awaitState(s, tcplab.Close)
			holder.close(s)
		}
	})
}

// Two processes that share one table of descriptors (clone with CLONE_FILES and
// nothing else): both have the socket, until one of them is gone.
func TestOwner_SharedDescriptorTable(t *testing.T) {
	play(t, func(w *world) {
		one, peer := w.startActor("one", 1), w.startActor("peer", 1)
		other := one.fork("other", unix.CLONE_FILES, 0)
		g := connectBoth(w, other, peer)
		other.kill()
		peer.close(g.toOther, g.toChild)
		for _, s := range []*sock{g.client, g.child} {
			one.awaitState(s, tcplab.CloseWait)
			one.close(s)
		}
	})
}

// A process in a pid namespace of its own has another number there; records have
// that of the initial one.
func TestOwner_InitialPIDNamespace(t *testing.T) {
	play(t, func(w *world) {
		server, outer := w.pair()
		client := outer.fork("in-own-pidns", unix.CLONE_NEWPID, 0)
		listener := server.listen(at(7000))
		for _, clientFirst := range []bool{true, false} {
			c := client.dial(at(7000))
			inOrder(client, c, server, server.accept(listener), clientFirst)
		}
	})
}
