package kernel_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// lastCloser: one process shuts down the sending side and passes the socket on, another
// process closes it last. After the first close only the other process may be named,
// also for the orphan that is left. reach brings the socket into a state before that.
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

// The process that closes a socket last is its owner, not the one that shut it down
// before.
func TestOwner_LastCloser(t *testing.T) {
	for state, reach := range statesAtClose {
		t.Run("in "+state, func(t *testing.T) { lastCloser(harness.NewEnv(t), false, reach) })
	}
}

// lastCloserCases are TestOwner_LastCloser with a tracer that starts after the
// shutdown, so that its scan finds the first process, which then closes the socket.
func lastCloserCases() (cases []harness.OlderCase) {
	for state, reach := range statesAtClose {
		cases = append(cases, harness.OlderCase{Name: "last closer in " + state,
			Body: func(env *harness.Env) { lastCloser(env, true, reach) }})
	}
	return cases
}

// A thread with its own descriptor table opens a socket, passes it on and exits; the
// leader exits as well. The table of another process that has the socket may then be at
// the same address. The first process is still not an owner.
func TestOwner_ReusedTableOfExitedThread(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		one := unix.CPUSet{}
		one.Set(0)
		opener, peer, receiver := env.StartActor("opener", 3), env.StartActor("peer", 1), env.StartActor("receiver", 1)
		opener.Pin(&one)
		receiver.Pin(&one)
		listener := peer.Listen(harness.At(7002))
		apart := opener.Threads[2]
		apart.Must(unix.SYS_UNSHARE, unix.CLONE_FILES)
		apart.OwnTable = true
		c := apart.Socket(harness.LoopbackAddr, unix.IPPROTO_TCP)
		apart.Connect(c, harness.At(7002))
		to := peer.Accept(listener)
		apart.SendFD(c, receiver)
		receiver.ReceiveFD(c)
		opener.Table.Slots = map[int]harness.Slot{} // the kernel drops it when the thread exits
		apart.ExitThread()
		opener.ExitThread()
		for range 4 {
			receiver.Fork("receiver-child", 0, 0)
		}
		peer.Close(to)
		receiver.AwaitState(c, tcplab.CloseWait)
	})
}
