package kernel_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// A timer runs while any process is on the CPU. The owner is the process that has the
// socket open.
func TestOwner_Timer(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		server, client := env.ServerAndClient()
		listener := server.Listen(harness.At(7000))
		c := client.Dial(harness.At(7000))
		s := server.Accept(listener)
		server.DropIncoming(s)
		client.SetInt(c, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 1)
		client.Write(c, "lost")
		client.AwaitState(c, tcplab.Close) // ETIMEDOUT, by the retransmission timer
		server.Discard(s)
	})
}

// The retransmitted SYN completes the connection a second after connect() returned. The
// process that called connect() is the owner.
func TestOwner_LateConnect(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		server, client := env.ServerAndClient()
		listener := server.Listen(harness.At(7000), server.DropIncoming)
		c := client.Socket(harness.LoopbackAddr, unix.IPPROTO_TCP)
		client.Must(unix.SYS_FCNTL, client.FD(c), unix.F_SETFL, unix.O_NONBLOCK)
		_ = client.TryConnect(c, harness.At(7000))
		client.AwaitState(c, tcplab.SynSent)
		server.AllowIncoming(listener)
		client.AwaitState(c, tcplab.Established)
		s := server.Accept(listener)
		harness.CloseInOrder(client, c, server, s, false)
	})
}

// A socket that connects to itself, by a simultaneous open and close, has one owner.
func TestOwner_SelfConnect(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		client := env.StartActor("self-connected", 1)
		s := client.Socket(harness.LoopbackAddr, unix.IPPROTO_TCP)
		client.Bind(s, harness.At(7300))
		client.Connect(s, harness.At(7300))
		client.AwaitState(s, tcplab.Established)
		client.Close(s)
	})
}
