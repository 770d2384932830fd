package kernel_test

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// givers is a connection in each direction between a process and its peer.
type givers struct {
	w                *world
	peer             *actor
	client, child    *sock
	toOther, toChild *sock // the peer's ends of them
	listeners        []*sock
}

// connectBoth makes a client and an accepted connection of the process, both to the
// peer, which does with its ends what the case wants.
func connectBoth(w *world, a, peer *actor) *givers {
	w.t.Helper()
	g := &givers{w: w, peer: peer}
	mine, its := a.listen(at(7001)), peer.listen(at(7002))
	g.client = a.dial(at(7002))
	g.toOther = peer.accept(its)
	g.toChild = peer.dial(at(7001))
	g.child = a.accept(mine)
	g.listeners = []*sock{mine, its}
	a.close(mine)
	return g
}

// The receiver of an SCM_RIGHTS message holds the socket from then on, and the giver
// does not once it has closed its own: before the receiver has operated on it nobody
// is known, after that the receiver is, also in softirq.
func TestOwner_PassedDescriptor(t *testing.T) {
	for _, operates := range []bool{false, true} {
		t.Run(fmt.Sprintf("receiver operates %v", operates), func(t *testing.T) {
			play(t, func(w *world) {
				giver, peer := w.startActor("giver", 1), w.startActor("peer", 1)
				receiver := w.startActor("receiver", 1)
				g := connectBoth(w, giver, peer)
				for _, s := range []*sock{g.client, g.child} {
					giver.pass(s, receiver, true)
					if operates {
						receiver.shutdown(s, unix.SHUT_WR)
					}
				}
				peer.close(g.toOther, g.toChild)
				for _, s := range []*sock{g.client, g.child} {
					receiver.awaitState(s, tcplab.CloseWait, tcplab.Close)
					receiver.close(s)
				}
			})
		})
	}
}

// While both have it both are right; when the receiver has closed its own again the
// giver is the only one.
func TestOwner_LentDescriptor(t *testing.T) {
	play(t, func(w *world) {
		giver, peer := w.startActor("giver", 1), w.startActor("peer", 1)
		receiver := w.startActor("receiver", 1)
		g := connectBoth(w, giver, peer)
		for _, s := range []*sock{g.client, g.child} {
			giver.pass(s, receiver, false)
			receiver.shutdown(s, unix.SHUT_WR)
			receiver.close(s)
		}
		peer.close(g.toOther, g.toChild)
		for _, s := range []*sock{g.client, g.child} {
			giver.awaitState(s, tcplab.Close)
		}
	})
}

// A descriptor in flight is nobody's. When the socket that it was sent to goes, the
// process that had that one closes it; the giver, who has left, must not be named.
func TestOwner_DescriptorNeverReceived(t *testing.T) {
	play(t, func(w *world) {
		giver, peer := w.startActor("giver", 1), w.startActor("peer", 1)
		receiver := w.startActor("receiver", 1)
		g := connectBoth(w, giver, peer)
		giver.give(g.client, receiver)
		giver.give(g.child, receiver)
		giver.close(g.client, g.child)
		peer.close(g.toChild)
		receiver.dropMail(g.client, g.child)
		peer.awaitState(g.toOther, tcplab.CloseWait)
	})
}

// pidfd_getfd takes a descriptor without the holder doing anything: who has taken it
// owns it as well, and alone once the first has closed its own.
func TestOwner_PidfdGetfd(t *testing.T) {
	for _, operates := range []bool{false, true} {
		t.Run(fmt.Sprintf("taker operates %v", operates), func(t *testing.T) {
			play(t, func(w *world) {
				holder, peer := w.startActor("holder", 1), w.startActor("peer", 1)
				taker := w.startActor("taker", 1)
				g := connectBoth(w, holder, peer)
				for _, s := range []*sock{g.client, g.child} {
					taker.fetch(s, holder)
					holder.close(s)
					if operates {
						taker.shutdown(s, unix.SHUT_WR)
					}
				}
				peer.close(g.toOther, g.toChild)
				for _, s := range []*sock{g.client, g.child} {
					taker.awaitState(s, tcplab.CloseWait, tcplab.Close)
				}
			})
		})
	}
}

// Under another number it is the same process's. Past the 64th descriptor it is not
// looked for, so there the owner may be unknown until it operates again.
func TestOwner_DuplicatedDescriptor(t *testing.T) {
	for _, number := range []int{40, 700} {
		t.Run(fmt.Sprint(number), func(t *testing.T) {
			play(t, func(w *world) {
				holder, peer := w.startActor("holder", 1), w.startActor("peer", 1)
				g := connectBoth(w, holder, peer)
				for i, s := range []*sock{g.client, g.child} {
					low := holder.fd(s)
					holder.dupTo(s, number+i)
					holder.closeFD(low)
					if number > 64 {
						w.mayLack = append(w.mayLack, func(l line, of *sock) bool { return of == s && l.New == "CLOSE_WAIT" })
					}
				}
				peer.close(g.toOther, g.toChild)
				for _, s := range []*sock{g.client, g.child} {
					holder.awaitState(s, tcplab.CloseWait)
				}
			})
		})
	}
}

// The number that a socket had is another file's now, in the process that gave it
// away: that process is no owner any more.
func TestOwner_DescriptorNumberReused(t *testing.T) {
	play(t, func(w *world) {
		giver, peer := w.startActor("giver", 1), w.startActor("peer", 1)
		receiver := w.startActor("receiver", 1)
		g := connectBoth(w, giver, peer)
		for _, s := range []*sock{g.client, g.child} {
			giver.give(s, receiver)
			fd := giver.fd(s)
			giver.closeFD(fd)
			giver.must(unix.SYS_DUP3, uintptr(giver.theirs[0]), fd, 0)
			receiver.take(s)
		}
		peer.close(g.toOther, g.toChild)
		for _, s := range []*sock{g.client, g.child} {
			receiver.awaitState(s, tcplab.CloseWait)
		}
	})
}

// A process with 2,000 descriptors before its sockets owns them like any other.
func TestOwner_ManyDescriptors(t *testing.T) {
	play(t, func(w *world) {
		holder, peer := w.startActor("holder", 1), w.startActor("peer", 1)
		holder.setFileLimit(4096)
		for range 2000 {
			holder.noSocketsTo = holder.must(unix.SYS_DUP, 0)
		}
		for range 3 {
			g := connectBoth(w, holder, peer)
			peer.close(g.toOther, g.toChild)
			for _, s := range []*sock{g.client, g.child} {
				holder.awaitState(s, tcplab.CloseWait)
				holder.close(s)
			}
			peer.close(g.listeners[1])
		}
	})
}

// A client that forks: both have the socket. Whoever closes it last closed it, and
// the other, which has left or is dead, must not be named.
func TestOwner_ForkedClient(t *testing.T) {
	for _, last := range []string{"parent", "child"} {
		for _, operates := range []bool{false, true} {
			for _, how := range []string{"close", "exit"} {
				t.Run(fmt.Sprintf("%s is last, operates %v, by %s", last, operates, how), func(t *testing.T) {
					play(t, func(w *world) {
						parent, peer := w.startActor("forker", 1), w.startActor("peer", 1)
						g := connectBoth(w, parent, peer)
						first, second := parent, parent.fork("forked", 0, 0)
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

func forkedEnd(g *givers, first, second *actor, operates bool, how string) {
	g.w.t.Helper()
	both := []*sock{g.client, g.child}
	if operates {
		for _, s := range both {
			second.shutdown(s, unix.SHUT_WR)
		}
	}
	if how == "exit" {
		first.exit()
	} else {
		first.close(both...)
	}
	g.peer.close(g.toOther, g.toChild)
	for _, s := range both {
		second.awaitState(s, tcplab.CloseWait, tcplab.Close)
	}
	second.close(both...)
}
