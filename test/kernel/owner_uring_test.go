package kernel_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// io_uring makes the calls in the process's own thread, in a worker (iou-wrk) or in
// a submission thread (iou-sqp) of it: the thread is another one, the process is right.
func TestOwner_Uring(t *testing.T) {
	modes := []struct {
		name  string
		setup uintptr
		flags uint8
	}{
		{"in the process's own thread", 0, 0},
		{"in a worker thread", 0, uringAsync},
		{"in a submission thread", uringSetupSQPoll, 0},
		{"in a worker of a submission thread", uringSetupSQPoll, uringAsync},
	}
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			play(t, func(w *world) {
				server, client := w.startProgram("a-server", 1), w.startProgram("a-client", 1)
				server.openRing(mode.setup)
				client.openRing(mode.setup)
				listener := server.listen(at(7000))
				for _, clientFirst := range []bool{true, false} {
					c := client.socket(loopback, unix.IPPROTO_TCP)
					client.ringConnect(c, rawSockaddr(at(7000)), mode.flags)
					s := server.ringAccept(listener, mode.flags)
					if clientFirst {
						client.ringClose(c, mode.flags)
						server.awaitState(s, tcplab.CloseWait)
						server.ringShutdown(s, mode.flags)
						server.ringClose(s, mode.flags)
					} else {
						server.ringShutdown(s, mode.flags)
						client.awaitState(c, tcplab.CloseWait)
						client.ringClose(c, mode.flags)
						server.awaitState(s, tcplab.Close)
						server.ringClose(s, mode.flags)
					}
				}
			})
		})
	}
}

// The opener has passed the socket on and closed its own; the receiver has it by its
// ring only and dies, and a kernel thread closes it for it. The opener must not be
// named then, nor for the orphan.
func TestOwner_UringClosedByKernelThread(t *testing.T) {
	play(t, func(w *world) {
		opener, peer := w.startActor("opener", 1), w.startActor("peer", 1)
		receiver := w.startProgram("receiver", 1)
		receiver.openRing(0)
		g := connectBoth(w, opener, peer)
		opener.shutdown(g.child, unix.SHUT_WR) // makes it known for this one as well
		opener.pass(g.client, receiver, true)
		receiver.register(g.client)
		receiver.kill()
		peer.awaitState(g.toOther, tcplab.CloseWait)
		peer.close(g.toOther)
	})
}

// The process has the socket by its ring only: it is still its own, at most.
func TestOwner_UringRegisteredFile(t *testing.T) {
	play(t, func(w *world) {
		holder, peer := w.startProgram("holder", 1), w.startActor("peer", 1)
		holder.openRing(0)
		g := connectBoth(w, holder, peer)
		holder.register(g.client)
		w.mayLack = append(w.mayLack, func(_ line, s *sock) bool { return s == g.client })
		peer.close(g.toOther)
		holder.exit()
	})
}
