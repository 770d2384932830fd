package kernel_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// A socket whose sending side one process shut down, and which another one closes as
// the last: from the first one's close on only the other is right, also for the
// orphan that is left. Each case brings the socket into another state in between.
func lastCloser(env *harness.Env, older bool, reach func(shutter, peer *harness.Actor, c, to *harness.Socket)) {
	env.T.Helper()
	shutter, peer := env.StartActor("shutter", 1), env.StartActor("peer", 1)
	closer := env.StartActor("closer", 1)
	if !older {
		env.UseSharedTracers()
	}
	listener := peer.Listen(harness.At(7002))
	c := shutter.Dial(harness.At(7002))
	to := peer.Accept(listener)
	reach(shutter, peer, c, to)
	if older {
		env.TraceFromHere()
	}
	shutter.PassFD(c, closer, true)
	closer.Close(c)
	if peer.Table.Has(to) {
		peer.AllowIncoming(to)
		peer.Close(to)
	}
	env.Finish()
}

var statesAtClose = map[string]func(shutter, peer *harness.Actor, c, to *harness.Socket){
	"FIN_WAIT1": func(shutter, peer *harness.Actor, c, to *harness.Socket) {
		peer.DropIncoming(to)
		shutter.Shutdown(c, unix.SHUT_WR)
	},
	"FIN_WAIT2": func(shutter, peer *harness.Actor, c, to *harness.Socket) {
		shutter.Shutdown(c, unix.SHUT_WR)
		peer.AwaitState(to, tcplab.CloseWait)
		shutter.AwaitState(c, tcplab.FinWait2)
	},
	"CLOSING": func(shutter, peer *harness.Actor, c, to *harness.Socket) {
		peer.DropIncoming(to)
		shutter.Shutdown(c, unix.SHUT_WR)
		peer.Shutdown(to, unix.SHUT_WR)
		shutter.AwaitState(c, tcplab.Closing)
	},
	"LAST_ACK": func(shutter, peer *harness.Actor, c, to *harness.Socket) {
		peer.Shutdown(to, unix.SHUT_WR)
		shutter.AwaitState(c, tcplab.CloseWait)
		peer.DropIncoming(to)
		shutter.Shutdown(c, unix.SHUT_WR)
	},
	"CLOSE": func(shutter, peer *harness.Actor, c, to *harness.Socket) {
		peer.LingerZero(to)
		peer.Close(to)
		shutter.AwaitState(c, tcplab.Close)
	},
}

func TestOwner_LastCloser(t *testing.T) {
	for state, reach := range statesAtClose {
		t.Run("in "+state, func(t *testing.T) { lastCloser(harness.NewEnv(t), false, reach) })
	}
}

// The same where the tracer came after the shutdown: the one that the scan found
// has left.
func lastCloserCases() (cases []harness.OlderCase) {
	for state, reach := range statesAtClose {
		cases = append(cases, harness.OlderCase{Name: "who closes it last, and not who the scan found, in " + state,
			Body: func(env *harness.Env) { lastCloser(env, true, reach) }})
	}
	return cases
}

// A thread with a table of descriptors of its own opens a socket, passes it on and
// ends, and so does the leader. Another process's table may then lie where the
// thread's was, and have that socket: the first process is no owner all the same.
func TestOwner_ReusedTableOfExitedThread(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		one := unix.CPUSet{}
		one.Set(0)
		opener, peer, heir := env.StartActor("opener", 3), env.StartActor("peer", 1), env.StartActor("heir", 1)
		opener.Pin(&one)
		heir.Pin(&one)
		listener := peer.Listen(harness.At(7002))
		apart := opener.Threads[2]
		apart.Must(unix.SYS_UNSHARE, unix.CLONE_FILES)
		apart.OwnTable = true
		c := apart.Socket(harness.LoopbackAddr, unix.IPPROTO_TCP)
		apart.Connect(c, harness.At(7002))
		to := peer.Accept(listener)
		apart.SendFD(c, heir)
		heir.ReceiveFD(c)
		opener.Table.Slots = map[int]harness.Slot{} // it goes with the thread
		apart.ExitThread()
		opener.ExitThread()
		for range 4 {
			heir.Fork("heir-of-heir", 0, 0)
		}
		peer.Close(to)
		heir.AwaitState(c, tcplab.CloseWait)
	})
}
