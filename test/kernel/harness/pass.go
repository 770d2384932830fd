package harness

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Ways to pass a socket from one process to another.

// SendFD sends a descriptor to the receiver, which has it only after ReceiveFD. Until then
// the descriptor is in flight: if the sender closes its own, no process has the socket open.
func (th *thread) SendFD(s *Socket, receiver *Actor) {
	env := th.actor.env
	env.T.Helper()
	receiver.openInbox()
	from := Now()
	s.inFlight = true
	th.sendRaw(int(th.actor.FD(s)), receiver)
	env.noteStep(th.actor, from, Now())
}

// sendRaw sends a descriptor to the inbox of the receiver.
func (th *thread) sendRaw(fd int, receiver *Actor) {
	env := th.actor.env
	env.T.Helper()
	name, rights := receiver.inboxName(), unix.UnixRights(fd)
	sender := th.Must(unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	o := th.Order(unix.SYS_SENDMSG)
	iov := rawIovec{o.Put([]byte{'s'}), 1}
	msg := rawMsghdr{
		name: o.Put(name), nameLen: uint32(len(name)),
		iov: o.Put(bytesOf(&iov)), iovLen: 1,
		control: o.Put(rights), controlLen: uint64(len(rights)),
	}
	_, err := o.do(uintptr(sender), o.Put(bytesOf(&msg)), 0)
	env.must(th.actor, unix.SYS_SENDMSG, err)
	th.CloseRaw(sender)
}

// LoseInbox sends the Unix socket to which this process has sent descriptors to itself, and closes
// it: no process can receive them any more. The kernel's garbage collector closes them
// (net/unix/garbage.c), in a kernel thread or, on older kernels, in the process that calls
// CollectGarbage.
func (th *thread) LoseInbox() {
	th.actor.env.T.Helper()
	th.sendRaw(th.actor.inbox, th.actor)
	th.CloseRaw(th.actor.inbox)
	th.actor.inbox = 0
}

// CollectGarbage makes the kernel look for Unix sockets that no process can reach.
func (th *thread) CollectGarbage() {
	th.actor.env.T.Helper()
	th.CloseRaw(th.Must(unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_DGRAM, 0))
}

// ReceiveFD receives a descriptor that SendFD has sent.
func (th *thread) ReceiveFD(s *Socket) {
	env := th.actor.env
	env.T.Helper()
	from := Now()
	o := th.Order(unix.SYS_RECVMSG)
	iov := rawIovec{o.Put([]byte{0}), 1}
	control := o.Put(make([]byte, 64))
	msg := rawMsghdr{iov: o.Put(bytesOf(&iov)), iovLen: 1, control: control, controlLen: 64}
	_, err := o.do(uintptr(th.actor.inbox), o.Put(bytesOf(&msg)), 0)
	env.must(th.actor, unix.SYS_RECVMSG, err)
	messages, err := unix.ParseSocketControlMessage(o.got(control, unix.CmsgSpace(4)))
	if err != nil {
		env.T.Fatalf("parse control message: %v", err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		env.T.Fatalf("parse descriptors: %v", err)
	}
	s.inFlight = false
	th.actor.adopt(fds[0], s)
	env.noteStep(th.actor, from, Now())
}

// PassFD is SendFD and ReceiveFD. With andClose the sender closes its descriptor in
// between.
func (th *thread) PassFD(s *Socket, receiver *Actor, andClose bool) {
	th.actor.env.T.Helper()
	th.SendFD(s, receiver)
	if andClose {
		th.Close(s)
	}
	receiver.ReceiveFD(s)
}

// rawIovec and rawMsghdr contain addresses in another process.
type rawIovec struct{ base, size uintptr }

type rawMsghdr struct {
	name       uintptr
	nameLen, _ uint32
	iov        uintptr
	iovLen     uint64
	control    uintptr
	controlLen uint64
	_          uint64
}

func (a *Actor) inboxName() []byte {
	name := unix.RawSockaddrUnix{Family: unix.AF_UNIX}
	// An abstract name, which begins with a NUL, belongs to the network namespace.
	for i, c := range fmt.Sprintf("actor %d", a.PID) {
		name.Path[1+i] = int8(c)
	}
	return bytesOf(&name)[:2+1+len(fmt.Sprintf("actor %d", a.PID))]
}

func (a *Actor) openInbox() {
	a.env.T.Helper()
	if a.inbox != 0 {
		return
	}
	a.inbox = a.Must(unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	o, name := a.Order(unix.SYS_BIND), a.inboxName()
	_, err := o.do(uintptr(a.inbox), o.Put(name), uintptr(len(name)))
	a.env.must(a, unix.SYS_BIND, err)
}

// CloseInbox closes the unix socket to which SendFD has sent the descriptors, instead of
// receiving them. The kernel then closes them in the context of this process. It may be named for
// that only if the socket is its user's or root's.
func (th *thread) CloseInbox(sent ...*Socket) {
	env := th.actor.env
	env.T.Helper()
	from := Now()
	th.CloseRaw(th.actor.inbox)
	th.actor.inbox = 0
	until := Now()
	for _, s := range sent {
		if uid := s.uids[len(s.uids)-1].Value; uid != 0 && uid != th.actor.uid {
			continue // as in flight: no process may be named
		}
		s.inFlight = false
		s.possessions = append(s.possessions, possession{th.actor, from, until, from})
		s.noteOperation(th.actor, from)
	}
	env.noteStep(th.actor, from, until)
}

// PidfdGet copies a descriptor out of the table of another process with pidfd_getfd
// (Linux 5.6).
func (th *thread) PidfdGet(s *Socket, other *Actor) {
	env := th.actor.env
	env.T.Helper()
	pidfd := th.Must(unix.SYS_PIDFD_OPEN, uintptr(other.PID), 0)
	from := Now()
	fd := th.Must(unix.SYS_PIDFD_GETFD, uintptr(pidfd), other.FD(s), 0)
	th.actor.adopt(fd, s)
	env.noteStep(th.actor, from, Now())
	th.CloseRaw(pidfd)
}
