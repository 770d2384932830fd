package kernel_test

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// After SCM_RIGHTS the receiver has the socket open; the sender closes its descriptor.
// Until the receiver operates on the socket no owner is known. After that the receiver
// is, also for events in softirq.
func TestOwner_PassedDescriptor(t *testing.T) {
	for _, operates := range []bool{false, true} {
		t.Run(fmt.Sprintf("receiver operates %v", operates), func(t *testing.T) {
			harness.Run(t, func(env *harness.Env) {
				giver, peer := env.StartActor("giver", 1), env.StartActor("peer", 1)
				receiver := env.StartActor("receiver", 1)
				g := harness.ConnectBoth(env, giver, peer)
				for _, s := range []*harness.Socket{g.Client, g.Child} {
					giver.PassFD(s, receiver, true)
					if operates {
						receiver.Shutdown(s, unix.SHUT_WR)
					}
				}
				peer.Close(g.ClientPeer, g.ChildPeer)
				for _, s := range []*harness.Socket{g.Client, g.Child} {
					receiver.AwaitState(s, tcplab.CloseWait, tcplab.Close)
					receiver.Close(s)
				}
			})
		})
	}
}

// While sender and receiver have the socket open, either may be named. After the
// receiver's close only the sender may be.
func TestOwner_LentDescriptor(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		giver, peer := env.StartActor("giver", 1), env.StartActor("peer", 1)
		receiver := env.StartActor("receiver", 1)
		g := harness.ConnectBoth(env, giver, peer)
		for _, s := range []*harness.Socket{g.Client, g.Child} {
			giver.PassFD(s, receiver, false)
			receiver.Shutdown(s, unix.SHUT_WR)
			receiver.Close(s)
		}
		peer.Close(g.ClientPeer, g.ChildPeer)
		for _, s := range []*harness.Socket{g.Client, g.Child} {
			giver.AwaitState(s, tcplab.Close)
		}
	})
}

// A descriptor in flight belongs to no process. When the receiving socket is closed,
// its process closes the descriptor too. The sender, which has closed its own, must not
// be named.
func TestOwner_DescriptorNeverReceived(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		giver, peer := env.StartActor("giver", 1), env.StartActor("peer", 1)
		receiver := env.StartActor("receiver", 1)
		g := harness.ConnectBoth(env, giver, peer)
		giver.SendFD(g.Client, receiver)
		giver.SendFD(g.Child, receiver)
		giver.Close(g.Client, g.Child)
		peer.Close(g.ChildPeer)
		receiver.CloseInbox(g.Client, g.Child)
		peer.AwaitState(g.ClientPeer, tcplab.CloseWait)
	})
}

// pidfd_getfd copies a descriptor without a call by its process. Both processes own the
// socket; after the first one's close only the other does.
func TestOwner_PidfdGetfd(t *testing.T) {
	for _, operates := range []bool{false, true} {
		t.Run(fmt.Sprintf("taker operates %v", operates), func(t *testing.T) {
			harness.Run(t, func(env *harness.Env) {
				owner, peer := env.StartActor("owner", 1), env.StartActor("peer", 1)
				taker := env.StartActor("taker", 1)
				g := harness.ConnectBoth(env, owner, peer)
				for _, s := range []*harness.Socket{g.Client, g.Child} {
					taker.PidfdGet(s, owner)
					owner.Close(s)
					if operates {
						taker.Shutdown(s, unix.SHUT_WR)
					}
				}
				peer.Close(g.ClientPeer, g.ChildPeer)
				for _, s := range []*harness.Socket{g.Client, g.Child} {
					taker.AwaitState(s, tcplab.CloseWait, tcplab.Close)
				}
			})
		})
	}
}

// The process still owns a socket whose descriptor it duplicated and closed. The tracer
// looks at 64 descriptors only: above these the owner may be missing until the next
// operation.
func TestOwner_DuplicatedDescriptor(t *testing.T) {
	for _, number := range []int{40, 700} {
		t.Run(fmt.Sprint(number), func(t *testing.T) {
			harness.Run(t, func(env *harness.Env) {
				owner, peer := env.StartActor("owner", 1), env.StartActor("peer", 1)
				g := harness.ConnectBoth(env, owner, peer)
				for i, s := range []*harness.Socket{g.Client, g.Child} {
					low := owner.FD(s)
					owner.DupTo(s, number+i)
					owner.CloseFD(low)
					if number > 64 {
						env.KnownLimits = append(env.KnownLimits, func(l harness.Record, of *harness.Socket) bool { return of == s && l.New == "CLOSE_WAIT" })
					}
				}
				peer.Close(g.ClientPeer, g.ChildPeer)
				for _, s := range []*harness.Socket{g.Client, g.Child} {
					owner.AwaitState(s, tcplab.CloseWait)
				}
			})
		})
	}
}

// The sender of a socket reuses its descriptor for another file. It must not be named.
func TestOwner_DescriptorNumberReused(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		giver, peer := env.StartActor("giver", 1), env.StartActor("peer", 1)
		receiver := env.StartActor("receiver", 1)
		g := harness.ConnectBoth(env, giver, peer)
		for _, s := range []*harness.Socket{g.Client, g.Child} {
			giver.SendFD(s, receiver)
			fd := giver.FD(s)
			giver.CloseFD(fd)
			giver.Must(unix.SYS_DUP3, uintptr(giver.Theirs[0]), fd, 0)
			receiver.ReceiveFD(s)
		}
		peer.Close(g.ClientPeer, g.ChildPeer)
		for _, s := range []*harness.Socket{g.Client, g.Child} {
			receiver.AwaitState(s, tcplab.CloseWait)
		}
	})
}

// A process with 2,000 other descriptors owns its sockets like any other process.
func TestOwner_ManyDescriptors(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		owner, peer := env.StartActor("owner", 1), env.StartActor("peer", 1)
		owner.SetFileLimit(4096)
		for range 2000 {
			owner.NoSocketsTo = owner.Must(unix.SYS_DUP, 0)
		}
		for range 3 {
			g := harness.ConnectBoth(env, owner, peer)
			peer.Close(g.ClientPeer, g.ChildPeer)
			for _, s := range []*harness.Socket{g.Client, g.Child} {
				owner.AwaitState(s, tcplab.CloseWait)
				owner.Close(s)
			}
			peer.Close(g.Listeners[1])
		}
	})
}

// A client and its forked child both have the socket open. The one that closes it last
// is the owner; the other, which has closed it or is dead, must not be named.
func TestOwner_ForkedClient(t *testing.T) {
	for _, last := range []string{"parent", "child"} {
		for _, operates := range []bool{false, true} {
			for _, how := range []string{"close", "exit"} {
				t.Run(fmt.Sprintf("%s is last, operates %v, by %s", last, operates, how), func(t *testing.T) {
					harness.Run(t, func(env *harness.Env) {
						parent, peer := env.StartActor("forker", 1), env.StartActor("peer", 1)
						g := harness.ConnectBoth(env, parent, peer)
						first, second := parent, parent.Fork("forked", 0, 0)
						if last == "parent" {
							first, second = second, first
						}
						forkedEnd(g, first, second, operates, how)
					})
				})
			}
		}
	}
}

func forkedEnd(g *harness.Connections, first, second *harness.Actor, operates bool, how string) {
	g.Env.T.Helper()
	both := []*harness.Socket{g.Client, g.Child}
	if operates {
		for _, s := range both {
			second.Shutdown(s, unix.SHUT_WR)
		}
	}
	if how == "exit" {
		first.Exit()
	} else {
		first.Close(both...)
	}
	g.Peer.Close(g.ClientPeer, g.ChildPeer)
	for _, s := range both {
		second.AwaitState(s, tcplab.CloseWait, tcplab.Close)
	}
	second.Close(both...)
}
