package harness

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// Workers forks count children.
func (a *Actor) Workers(count int) []*Actor {
	a.env.T.Helper()
	var workers []*Actor
	for i := range count {
		workers = append(workers, a.Fork(fmt.Sprintf("worker-%d", i), 0, 0))
	}
	return workers
}

// ReusePort sets SO_REUSEPORT. It is an option for Listen.
func (th *thread) ReusePort(s *Socket) {
	th.SetInt(s, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
}

// AwaitConnection waits until one of the listeners has a connection, and returns it
// with its worker.
func AwaitConnection(env *Env, workers []*Actor, listeners []*Socket) (worker *Actor, listener *Socket) {
	env.T.Helper()
	env.await("connection to accept", func() bool {
		for i := range workers {
			if workers[i].readable(listeners[i]) {
				worker, listener = workers[i], listeners[i]
			}
		}
		return worker != nil
	})
	return worker, listener
}

func (th *thread) readable(s *Socket) bool {
	th.actor.env.T.Helper()
	o := th.Order(unix.SYS_PPOLL)
	poll := unix.PollFd{Fd: int32(th.actor.FD(s)), Events: unix.POLLIN}
	var atOnce unix.Timespec
	n, err := o.do(o.Put(bytesOf(&poll)), 1, o.Put(bytesOf(&atOnce)), 0)
	th.actor.env.must(th.actor, unix.SYS_PPOLL, err)
	return n > 0
}

// ServerAndClient starts two processes.
func (env *Env) ServerAndClient() (server, client *Actor) {
	env.T.Helper()
	return env.StartActor("a-server", 1), env.StartActor("a-client", 1)
}

// CloseInOrder closes both ends, one after the other.
func CloseInOrder(client *Actor, c *Socket, server *Actor, s *Socket, clientFirst bool) {
	client.env.T.Helper()
	if clientFirst {
		client.Close(c)
		server.AwaitState(s, tcplab.CloseWait)
		server.Close(s)
	} else {
		server.Close(s)
		client.AwaitState(c, tcplab.CloseWait)
		client.Close(c)
	}
}

// LingerZero sets SO_LINGER to 0: a close then sends a reset.
func (th *thread) LingerZero(s *Socket) {
	th.actor.env.T.Helper()
	th.setsockopt(s, unix.SOL_SOCKET, unix.SO_LINGER, bytesOf(&unix.Linger{Onoff: 1}))
}

// SetUID changes the user of the main thread. The process must have no other thread.
func (a *Actor) SetUID(uid int) {
	a.env.T.Helper()
	a.Must(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid))
	a.uid = uid
}

// CloseOnExec marks a descriptor of the socket close-on-exec.
func (a *Actor) CloseOnExec(s *Socket) {
	a.env.T.Helper()
	fd := a.FD(s)
	a.Must(unix.SYS_FCNTL, fd, unix.F_SETFD, unix.FD_CLOEXEC)
	a.Table.Slots[int(fd)] = Slot{s: s, cloexec: true}
}

// FastOpen enables TCP fast open. It is an option for Listen.
func (th *thread) FastOpen(s *Socket) {
	th.SetInt(s, unix.IPPROTO_TCP, unix.TCP_FASTOPEN, 16)
}

// Connections is one connection in each direction between a process and its peer.
type Connections struct {
	Env                   *Env
	Peer                  *Actor
	Client, Child         *Socket
	ClientPeer, ChildPeer *Socket // the peer's ends
	Listeners             []*Socket
}

// ConnectBoth makes a client socket and an accepted socket in process a, both connected
// to the peer.
func ConnectBoth(env *Env, a, peer *Actor) *Connections {
	env.T.Helper()
	g := &Connections{Env: env, Peer: peer}
	mine, its := a.Listen(At(7001)), peer.Listen(At(7002))
	g.Client = a.Dial(At(7002))
	g.ClientPeer = peer.Accept(its)
	g.ChildPeer = peer.Dial(At(7001))
	g.Child = a.Accept(mine)
	g.Listeners = []*Socket{mine, its}
	a.Close(mine)
	return g
}

// OrphanOf makes a connection of the process dying, lets the peer drop all segments,
// and kills the process. The FIN stays unanswered: the socket is an orphan in
// FIN_WAIT1. By default TCP gives it up after a hundred seconds, and a slow guest may not
// have come to AllowIncoming by then.
func OrphanOf(env *Env, dying, peer *Actor) (orphan, toOrphan *Socket) {
	env.T.Helper()
	env.Netns.Sysctl("net.ipv4.tcp_orphan_retries", "100")
	listener := peer.Listen(At(7002))
	orphan = dying.Dial(At(7002))
	toOrphan = peer.Accept(listener)
	peer.DropIncoming(toOrphan)
	dying.Kill()
	return orphan, toOrphan
}

// CheckScanFoundOwner fails the test if no owner came from the scan, on a kernel that
// has the scan.
func (env *Env) CheckScanFoundOwner(lines []Record) {
	env.T.Helper()
	for _, l := range lines {
		if l.Type == "transition" && l.Source == "scan" {
			return
		}
	}
	if env.Has("socket_scan") {
		env.T.Error("no transition has pid_source scan")
	}
}
