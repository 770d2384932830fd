package kernel_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// uringModes are who makes the calls of an io_uring.
var uringModes = []struct {
	name  string
	setup uintptr
	flags uint8
}{
	{"in the process's own thread", 0, 0},
	{"in a worker thread", 0, harness.UringAsync},
	{"in a submission thread", harness.UringSetupSQPoll, 0},
	{"in a worker of a submission thread", harness.UringSetupSQPoll, harness.UringAsync},
}

// io_uring makes the calls in the process's own thread, in a worker (iou-wrk) or in a
// submission thread (iou-sqp). In each case the owner is the process that has the
// io_uring.
func TestOwner_Uring(t *testing.T) {
	for _, mode := range uringModes {
		t.Run(mode.name, func(t *testing.T) {
			harness.Run(t, func(env *harness.Env) {
				server, client := env.StartProgram("a-server", 1), env.StartProgram("a-client", 1)
				server.OpenUring(mode.setup)
				client.OpenUring(mode.setup)
				listener := server.Listen(harness.At(7000))
				for _, clientFirst := range []bool{true, false} {
					c := client.Socket(harness.LoopbackAddr, unix.IPPROTO_TCP)
					client.UringConnect(c, harness.RawSockaddr(harness.At(7000)), mode.flags)
					s := server.UringAccept(listener, mode.flags)
					if clientFirst {
						client.UringClose(c, mode.flags)
						server.AwaitState(s, tcplab.CloseWait)
						server.UringShutdown(s, mode.flags)
						server.UringClose(s, mode.flags)
					} else {
						server.UringShutdown(s, mode.flags)
						client.AwaitState(c, tcplab.CloseWait)
						client.UringClose(c, mode.flags)
						server.AwaitState(s, tcplab.Close)
						server.UringClose(s, mode.flags)
					}
				}
			})
		})
	}
}

// The opener passes the socket on and closes it. The receiver has it through its
// io_uring only and is killed: a kernel thread closes the socket. The opener must not
// be named then, nor for the orphan.
func TestOwner_UringClosedByKernelThread(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		opener, peer := env.StartActor("opener", 1), env.StartActor("peer", 1)
		receiver := env.StartProgram("receiver", 1)
		receiver.OpenUring(0)
		g := harness.ConnectBoth(env, opener, peer)
		opener.Shutdown(g.Child, unix.SHUT_WR) // makes the opener the stored owner of this one as well
		opener.PassFD(g.Client, receiver, true)
		receiver.Register(g.Client)
		receiver.Kill()
		peer.AwaitState(g.ClientPeer, tcplab.CloseWait)
		peer.Close(g.ClientPeer)
	})
}

// The process has the socket through its io_uring only. Records name this process or
// none.
func TestOwner_UringRegisteredFile(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		owner, peer := env.StartProgram("owner", 1), env.StartActor("peer", 1)
		owner.OpenUring(0)
		g := harness.ConnectBoth(env, owner, peer)
		owner.Register(g.Client)
		env.KnownLimits = append(env.KnownLimits, func(_ harness.Record, s *harness.Socket) bool { return s == g.Client })
		peer.Close(g.ClientPeer)
		owner.Exit()
	})
}
