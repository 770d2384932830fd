package harness

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

func (a *Actor) Workers(count int) []*Actor {
	a.env.T.Helper()
	var workers []*Actor
	for i := range count {
		workers = append(workers, a.Fork(fmt.Sprintf("worker-%d", i), 0, 0))
	}
	return workers
}

func (th *thread) ReusePort(s *Socket) {
	th.SetInt(s, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
}

// AwaitConnection is whose listener has a connection.
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

// ServerAndClient is a server and a client process, each under its own name.
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

func (th *thread) LingerZero(s *Socket) {
	th.actor.env.T.Helper()
	th.setsockopt(s, unix.SOL_SOCKET, unix.SO_LINGER, bytesOf(&unix.Linger{Onoff: 1}))
}

// Become changes the user of the thread, which is all there is to this process.
func (a *Actor) Become(uid int) {
	a.env.T.Helper()
	a.Must(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid))
	a.uid = uid
}

func (a *Actor) CloseOnExec(s *Socket) {
	a.env.T.Helper()
	fd := a.FD(s)
	a.Must(unix.SYS_FCNTL, fd, unix.F_SETFD, unix.FD_CLOEXEC)
	a.Table.Slots[int(fd)] = Slot{s: s, cloexec: true}
}

func (th *thread) FastOpen(s *Socket) {
	th.SetInt(s, unix.IPPROTO_TCP, unix.TCP_FASTOPEN, 16)
}

// Connections is a connection in each direction between a process and its peer.
type Connections struct {
	Env                   *Env
	Peer                  *Actor
	Client, Child         *Socket
	ClientPeer, ChildPeer *Socket // the peer's ends of them
	Listeners             []*Socket
}

// ConnectBoth makes a client and an accepted connection of the process, both to the
// peer, which does with its ends what the case wants.
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

// OrphanOf makes a connection of the process, has the peer go deaf, and kills the
// process: its FIN stays unanswered, the socket in FIN_WAIT1 and nobody's.
func OrphanOf(env *Env, dying, peer *Actor) (orphan, toOrphan *Socket) {
	env.T.Helper()
	listener := peer.Listen(At(7002))
	orphan = dying.Dial(At(7002))
	toOrphan = peer.Accept(listener)
	peer.DropIncoming(toOrphan)
	dying.Kill()
	return orphan, toOrphan
}

// WantScan makes sure that there was something to find.
func (env *Env) WantScan(lines []Record) {
	env.T.Helper()
	for _, l := range lines {
		if l.Type == "transition" && l.Source == "scan" {
			return
		}
	}
	if env.Has("socket_scan") {
		env.T.Error("no transition with pid_source scan")
	}
}
