package kernel_test

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Ways for a socket to come from one process to another.

// give sends a descriptor to the receiver, who has not got it before take. Until
// then it is in flight: nobody's, if the giver closes its own.
func (th *thread) give(s *sock, receiver *actor) {
	w := th.a.w
	w.t.Helper()
	receiver.openMail()
	name := receiver.mailName()
	rights := unix.UnixRights(int(th.a.fd(s)))
	sender := th.must(unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	from := now()
	s.inFlight = true
	o := th.order(unix.SYS_SENDMSG)
	iov := rawIovec{o.put([]byte{'s'}), 1}
	msg := rawMsghdr{
		name: o.put(name), nameLen: uint32(len(name)),
		iov: o.put(bytesOf(&iov)), iovLen: 1,
		control: o.put(rights), controlLen: uint64(len(rights)),
	}
	_, err := o.do(uintptr(sender), o.put(bytesOf(&msg)), 0)
	w.must(th.a, unix.SYS_SENDMSG, err)
	th.closeRaw(sender)
	w.stepped(th.a, from, now())
}

// take receives what give has sent.
func (th *thread) take(s *sock) {
	w := th.a.w
	w.t.Helper()
	from := now()
	o := th.order(unix.SYS_RECVMSG)
	iov := rawIovec{o.put([]byte{0}), 1}
	control := o.put(make([]byte, 64))
	msg := rawMsghdr{iov: o.put(bytesOf(&iov)), iovLen: 1, control: control, controlLen: 64}
	_, err := o.do(uintptr(th.a.mail), o.put(bytesOf(&msg)), 0)
	w.must(th.a, unix.SYS_RECVMSG, err)
	messages, err := unix.ParseSocketControlMessage(o.got(control, unix.CmsgSpace(4)))
	if err != nil {
		w.t.Fatalf("parse control message: %v", err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		w.t.Fatalf("parse descriptors: %v", err)
	}
	s.inFlight = false
	th.a.adopt(fds[0], s)
	w.stepped(th.a, from, now())
}

// pass is give and take, with the giver closing its own in between or not at all.
func (th *thread) pass(s *sock, receiver *actor, andClose bool) {
	th.a.w.t.Helper()
	th.give(s, receiver)
	if andClose {
		th.close(s)
	}
	receiver.take(s)
}

// rawIovec and rawMsghdr hold addresses of another process.
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

func (a *actor) mailName() []byte {
	name := unix.RawSockaddrUnix{Family: unix.AF_UNIX}
	// An abstract name, of the network namespace: it begins with a NUL.
	for i, c := range fmt.Sprintf("actor %d", a.pid) {
		name.Path[1+i] = int8(c)
	}
	return bytesOf(&name)[:2+1+len(fmt.Sprintf("actor %d", a.pid))]
}

func (a *actor) openMail() {
	a.w.t.Helper()
	if a.mail != 0 {
		return
	}
	a.mail = a.must(unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	o, name := a.order(unix.SYS_BIND), a.mailName()
	_, err := o.do(uintptr(a.mail), o.put(name), uintptr(len(name)))
	a.w.must(a, unix.SYS_BIND, err)
}

// dropMail closes the socket to which the descriptors were sent, unread: they go
// with it, in this process.
func (th *thread) dropMail(sent ...*sock) {
	w := th.a.w
	w.t.Helper()
	from := now()
	th.closeRaw(th.a.mail)
	th.a.mail = 0
	until := now()
	for _, s := range sent {
		s.inFlight = false
		s.holds = append(s.holds, hold{th.a, from, until, from})
		s.noteOperation(th.a, from)
	}
	w.stepped(th.a, from, until)
}

// fetch takes a descriptor out of another process's table: pidfd_getfd (Linux 5.6).
func (th *thread) fetch(s *sock, other *actor) {
	w := th.a.w
	w.t.Helper()
	pidfd := th.must(unix.SYS_PIDFD_OPEN, uintptr(other.pid), 0)
	from := now()
	fd := th.must(unix.SYS_PIDFD_GETFD, uintptr(pidfd), other.fd(s), 0)
	th.a.adopt(fd, s)
	w.stepped(th.a, from, now())
	th.closeRaw(pidfd)
}
