package kernel_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// A socket whose sending side one process shut down, and which another one closes as
// the last: from the first one's close on only the other is right, also for the
// orphan that is left. Each case brings the socket into another state in between.
func lastCloser(w *world, older bool, reach func(shutter, peer *actor, c, to *sock)) {
	w.t.Helper()
	shutter, peer := w.startActor("shutter", 1), w.startActor("peer", 1)
	closer := w.startActor("closer", 1)
	if !older {
		w.watch()
	}
	listener := peer.listen(at(7002))
	c := shutter.dial(at(7002))
	to := peer.accept(listener)
	reach(shutter, peer, c, to)
	if older {
		w.trace()
	}
	shutter.pass(c, closer, true)
	closer.close(c)
	if peer.table.has(to) {
		peer.hear(to)
		peer.close(to)
	}
	w.finish()
}

var statesAtClose = map[string]func(shutter, peer *actor, c, to *sock){
	"FIN_WAIT1": func(shutter, peer *actor, c, to *sock) {
		peer.deaf(to)
		shutter.shutdown(c, unix.SHUT_WR)
	},
	"FIN_WAIT2": func(shutter, peer *actor, c, to *sock) {
		shutter.shutdown(c, unix.SHUT_WR)
		peer.awaitState(to, tcplab.CloseWait)
		shutter.awaitState(c, tcplab.FinWait2)
	},
	"CLOSING": func(shutter, peer *actor, c, to *sock) {
		peer.deaf(to)
		shutter.shutdown(c, unix.SHUT_WR)
		peer.shutdown(to, unix.SHUT_WR)
		shutter.awaitState(c, tcplab.Closing)
	},
	"LAST_ACK": func(shutter, peer *actor, c, to *sock) {
		peer.shutdown(to, unix.SHUT_WR)
		shutter.awaitState(c, tcplab.CloseWait)
		peer.deaf(to)
		shutter.shutdown(c, unix.SHUT_WR)
	},
	"CLOSE": func(shutter, peer *actor, c, to *sock) {
		peer.lingerZero(to)
		peer.close(to)
		shutter.awaitState(c, tcplab.Close)
	},
}

func TestOwner_LastCloser(t *testing.T) {
	for state, reach := range statesAtClose {
		t.Run("in "+state, func(t *testing.T) { lastCloser(newWorld(t), false, reach) })
	}
}

// The same where the tracer came after the shutdown: the one that the scan found
// has left.
func lastCloserCases() (cases []olderCase) {
	for state, reach := range statesAtClose {
		cases = append(cases, olderCase{"who closes it last, and not who the scan found, in " + state,
			func(w *world) { lastCloser(w, true, reach) }})
	}
	return cases
}

// A thread with a table of descriptors of its own opens a socket, passes it on and
// ends, and so does the leader. Another process's table may then lie where the
// thread's was, and have that socket: the first process is no owner all the same.
func TestOwner_ReusedTableOfExitedThread(t *testing.T) {
	play(t, func(w *world) {
		one := unix.CPUSet{}
		one.Set(0)
		opener, peer, heir := w.startActor("opener", 3), w.startActor("peer", 1), w.startActor("heir", 1)
		opener.pin(&one)
		heir.pin(&one)
		listener := peer.listen(at(7002))
		apart := opener.threads[2]
		apart.must(unix.SYS_UNSHARE, unix.CLONE_FILES)
		apart.apart = true
		c := apart.socket(loopback, unix.IPPROTO_TCP)
		apart.connect(c, at(7002))
		to := peer.accept(listener)
		apart.give(c, heir)
		heir.take(c)
		opener.table.slots = map[int]slot{} // it goes with the thread
		apart.exitThread()
		opener.exitThread()
		for range 4 {
			heir.fork("heir-of-heir", 0, 0)
		}
		peer.close(to)
		heir.awaitState(c, tcplab.CloseWait)
	})
}
