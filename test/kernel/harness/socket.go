package harness

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// LoopbackAddr is the address that actors use.
var LoopbackAddr = netip.MustParseAddr("127.0.0.1")

// Anywhere is the port on 0.0.0.0.
func Anywhere(port uint16) netip.AddrPort { return netip.AddrPortFrom(netip.IPv4Unspecified(), port) }

// At is the port on LoopbackAddr.
func At(port uint16) netip.AddrPort { return netip.AddrPortFrom(LoopbackAddr, port) }

// FD returns the lowest descriptor that the process has of the socket.
func (a *Actor) FD(s *Socket) uintptr {
	a.env.T.Helper()
	lowest := -1
	for fd, slot := range a.Table.Slots {
		if slot.s == s && (lowest < 0 || fd < lowest) {
			lowest = fd
		}
	}
	if lowest < 0 {
		a.env.T.Fatalf("%s has no descriptor of %s", a.Name(), s.What)
	}
	return uintptr(lowest)
}

// adopt records a new descriptor of the process.
func (a *Actor) adopt(fd int, s *Socket) {
	a.Table.Slots[fd] = Slot{s: s}
}

// Socket makes a socket of the family of like, for IPPROTO_TCP or IPPROTO_MPTCP.
func (th *thread) Socket(like netip.Addr, protocol int) *Socket {
	env := th.actor.env
	env.T.Helper()
	domain := unix.AF_INET6
	if like.Is4() {
		domain = unix.AF_INET
	}
	from := Now()
	fd := th.Must(unix.SYS_SOCKET, uintptr(domain), unix.SOCK_STREAM, uintptr(protocol))
	return env.newSocket(th, fd, from, fmt.Sprintf("socket %d", len(env.Sockets)))
}

// newSocket records a socket that a system call has just made.
func (env *Env) newSocket(th *thread, fd int, from Moment, what string) *Socket {
	env.T.Helper()
	s := &Socket{What: what}
	env.Sockets = append(env.Sockets, s)
	th.actor.adopt(fd, s)
	th.identify(s, fd)
	if th.OwnTable {
		s.inode = "" // /proc shows the leader's table only
	}
	s.uids.add(from, Now(), th.actor.uid)
	env.noteStep(th.actor, from, Now())
	return s
}

// identify reads the cookie and the inode of a socket.
func (th *thread) identify(s *Socket, fd int) {
	env := th.actor.env
	env.T.Helper()
	b := th.getsockopt(fd, unix.SOL_SOCKET, unix.SO_COOKIE, 8)
	s.Conn = ConnID(binary.NativeEndian.Uint64(b))
	var err error
	s.inode, err = os.Readlink(fmt.Sprintf("/proc/%d/task/%d/fd/%d", th.actor.PID, th.tid, fd))
	if err != nil {
		env.T.Fatal(err)
	}
}

// noteLocking records a call that takes the socket's lock and changes nothing itself:
// this thread then handles a segment that came in meanwhile.
func (th *thread) noteLocking() (done func()) {
	from := Now()
	return func() { th.actor.env.steps = append(th.actor.env.steps, step{th.actor, from, Now()}) }
}

func (th *thread) getsockopt(fd, level, option, size int) []byte {
	th.actor.env.T.Helper()
	defer th.noteLocking()()
	o := th.Order(unix.SYS_GETSOCKOPT)
	value, length := o.Put(make([]byte, size)), int32(size)
	_, err := o.do(uintptr(fd), uintptr(level), uintptr(option), value, o.Put(bytesOf(&length)))
	th.actor.env.must(th.actor, unix.SYS_GETSOCKOPT, err)
	return o.got(value, size)
}

func (th *thread) setsockopt(s *Socket, level, option int, value []byte) {
	th.actor.env.T.Helper()
	defer th.noteLocking()()
	o := th.Order(unix.SYS_SETSOCKOPT)
	_, err := o.do(th.actor.FD(s), uintptr(level), uintptr(option), o.Put(value), uintptr(len(value)))
	th.actor.env.must(th.actor, unix.SYS_SETSOCKOPT, err)
}

// SetInt sets a socket option whose value is an int.
func (th *thread) SetInt(s *Socket, level, option int, value int32) {
	th.actor.env.T.Helper()
	th.setsockopt(s, level, option, bytesOf(&value))
}

// SendSequence returns the sequence number after the last byte that the socket has queued.
func (th *thread) SendSequence(s *Socket) uint32 {
	th.actor.env.T.Helper()
	const ( // include/uapi/linux/tcp.h
		repair, repairQueue, queueSeq = 19, 20, 21
		sendQueue, offWithoutProbe    = 2, -1
	)
	th.SetInt(s, unix.IPPROTO_TCP, repair, 1)
	th.SetInt(s, unix.IPPROTO_TCP, repairQueue, sendQueue)
	seq := th.getsockopt(int(th.actor.FD(s)), unix.IPPROTO_TCP, queueSeq, 4)
	th.SetInt(s, unix.IPPROTO_TCP, repair, offWithoutProbe)
	return binary.NativeEndian.Uint32(seq)
}

// Bind binds the socket to an address.
func (th *thread) Bind(s *Socket, to netip.AddrPort) {
	th.actor.env.T.Helper()
	o, name := th.Order(unix.SYS_BIND), RawSockaddr(to)
	_, err := o.do(th.actor.FD(s), o.Put(name), uintptr(len(name)))
	th.actor.env.must(th.actor, unix.SYS_BIND, err)
	s.Local = to
}

// Listen makes a listener. The options run between socket() and bind().
func (th *thread) Listen(on netip.AddrPort, options ...func(*Socket)) *Socket {
	th.actor.env.T.Helper()
	s := th.Socket(on.Addr(), unix.IPPROTO_TCP)
	th.SetInt(s, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	for _, option := range options {
		option(s)
	}
	th.Bind(s, on)
	th.StartListening(s)
	return s
}

// StartListening calls listen(). On a socket that listens already it changes the
// backlog.
func (th *thread) StartListening(s *Socket) {
	th.actor.env.T.Helper()
	from := Now()
	if s.Role != "listener" { // a second listen() makes no transition
		s.noteOperation(th.actor, from)
	}
	th.Must(unix.SYS_LISTEN, th.actor.FD(s), 4096)
	s.Role, s.What = "listener", fmt.Sprintf("listener on %v", s.Local)
	th.actor.env.noteStep(th.actor, from, Now())
}

// Dial makes a client socket and connects it.
func (th *thread) Dial(to netip.AddrPort) *Socket {
	th.actor.env.T.Helper()
	s := th.Socket(to.Addr(), unix.IPPROTO_TCP)
	th.Connect(s, to)
	return s
}

// Connect connects the socket, which must succeed.
func (th *thread) Connect(s *Socket, to netip.AddrPort) {
	th.actor.env.T.Helper()
	th.actor.env.must(th.actor, unix.SYS_CONNECT, th.TryConnect(s, to))
}

// TryConnect connects the socket and returns the error.
func (th *thread) TryConnect(s *Socket, to netip.AddrPort) error {
	env := th.actor.env
	env.T.Helper()
	from := Now()
	s.noteOperation(th.actor, from)
	s.Role, s.What = "client", fmt.Sprintf("client %s to %v", s.Conn, to)
	o, name := th.Order(unix.SYS_CONNECT), RawSockaddr(to)
	_, err := o.do(th.actor.FD(s), o.Put(name), uintptr(len(name)))
	th.learnAddrs(s)
	env.noteStep(th.actor, from, Now())
	return err
}

// DialFast connects with TCP fast open and the text in the SYN. With MSG_DONTWAIT the
// client drops incoming segments, so it never sees the answer.
func (th *thread) DialFast(to netip.AddrPort, text string, flags uintptr) *Socket {
	env := th.actor.env
	env.T.Helper()
	s := th.Socket(to.Addr(), unix.IPPROTO_TCP)
	if flags&unix.MSG_DONTWAIT != 0 {
		th.DropIncoming(s)
	}
	s.Role, s.What = "client", fmt.Sprintf("client %s to %v", s.Conn, to)
	from := Now()
	s.noteOperation(th.actor, from)
	o, name := th.Order(unix.SYS_SENDTO), RawSockaddr(to)
	_, err := o.do(th.actor.FD(s), o.Put([]byte(text)), uintptr(len(text)), flags|unix.MSG_FASTOPEN|unix.MSG_NOSIGNAL,
		o.Put(name), uintptr(len(name)))
	if flags&unix.MSG_DONTWAIT == 0 || !errors.Is(err, unix.EINPROGRESS) { // EINPROGRESS: the SYN could not be sent
		env.must(th.actor, unix.SYS_SENDTO, err)
	}
	s.written += uint64(len(text))
	th.learnAddrs(s)
	env.noteStep(th.actor, from, Now())
	return s
}

// NothingSent notes that TCP has sent nothing of what was written.
func (s *Socket) NothingSent() { s.written = 0 }

// learnAddrs reads the addresses that the socket has now. It may have no peer.
func (th *thread) learnAddrs(s *Socket) {
	for call, to := range map[uintptr]*netip.AddrPort{unix.SYS_GETSOCKNAME: &s.Local, unix.SYS_GETPEERNAME: &s.Peer} {
		o := th.Order(call)
		var name unix.RawSockaddrInet6
		length := int32(unsafe.Sizeof(name))
		value := o.Put(bytesOf(&name))
		if _, err := o.do(th.actor.FD(s), value, o.Put(bytesOf(&length))); err != nil {
			continue
		}
		copy(bytesOf(&name), o.got(value, int(length)))
		port := name.Port<<8 | name.Port>>8
		if name.Family == unix.AF_INET {
			four := *(*unix.RawSockaddrInet4)(unsafe.Pointer(&name))
			*to = netip.AddrPortFrom(netip.AddrFrom4(four.Addr), port)
		} else {
			*to = netip.AddrPortFrom(netip.AddrFrom16(name.Addr), port)
		}
	}
}

// Accept waits for a connection of the listener and accepts it.
func (th *thread) Accept(listener *Socket) *Socket {
	env := th.actor.env
	env.T.Helper()
	from := Now()
	fd := th.Must(unix.SYS_ACCEPT4, th.actor.FD(listener), 0, 0, 0)
	return th.accepted(listener, fd, from)
}

func (th *thread) accepted(listener *Socket, fd int, from Moment) *Socket {
	env := th.actor.env
	env.T.Helper()
	s := env.newSocket(th, fd, from, fmt.Sprintf("connection accepted by %s", th.actor.Name()))
	s.Listeners, s.Role, s.BeforeTracing = []*Socket{listener}, "server", env.tracedSince < 0
	// It has the listener's user until it is accepted, then its own.
	s.uids = append(timeline[int]{{0, 0, listener.uids[0].Value}}, s.uids...)
	th.learnAddrs(s)
	return s
}

// NoteUnaccepted records the child that the client's connection made and that no
// process accepts.
func (env *Env) NoteUnaccepted(listener, client *Socket) *Socket {
	s := &Socket{
		What: "unaccepted child of " + listener.What, Role: "server", Listeners: []*Socket{listener}, ByPorts: true,
		Local: client.Peer, Peer: client.Local,
	}
	s.uids = append(timeline[int]{{0, 0, listener.uids[0].Value}}, listener.uids...) // as its listener at the beginning
	env.Sockets = append(env.Sockets, s)
	return s
}

// Shutdown shuts down one or both directions.
func (th *thread) Shutdown(s *Socket, how int) {
	th.actor.env.T.Helper()
	from := Now()
	s.noteOperation(th.actor, from)
	th.Must(unix.SYS_SHUTDOWN, th.actor.FD(s), uintptr(how))
	if s.Role == "listener" {
		s.ended = Now()
	}
	th.actor.env.noteStep(th.actor, from, Now())
}

// Disconnect is connect() to AF_UNSPEC.
func (th *thread) Disconnect(s *Socket) {
	th.actor.env.T.Helper()
	from := Now()
	s.noteOperation(th.actor, from)
	o := th.Order(unix.SYS_CONNECT)
	_, err := o.do(th.actor.FD(s), o.Put(make([]byte, 16)), 16)
	th.actor.env.must(th.actor, unix.SYS_CONNECT, err)
	th.actor.env.noteStep(th.actor, from, Now())
}

// Close closes all descriptors that the process has of the sockets.
func (th *thread) Close(socks ...*Socket) {
	th.actor.env.T.Helper()
	for _, s := range socks {
		for th.actor.Table.Has(s) {
			th.CloseFD(th.actor.FD(s))
		}
	}
}

// CloseFD closes one descriptor of a socket.
func (th *thread) CloseFD(fd uintptr) {
	th.actor.env.T.Helper()
	from := Now()
	s := th.actor.Table.Slots[int(fd)].s
	delete(th.actor.Table.Slots, int(fd))
	th.actor.env.noteRelease(th.actor, s, from)
	th.Must(unix.SYS_CLOSE, fd)
	th.actor.env.noteStep(th.actor, from, Now())
}

// DupTo makes fd another descriptor of the socket, with dup3.
func (th *thread) DupTo(s *Socket, fd int) {
	th.actor.env.T.Helper()
	from := Now()
	th.Must(unix.SYS_DUP3, th.actor.FD(s), uintptr(fd), 0)
	th.actor.adopt(fd, s)
	th.actor.env.noteStep(th.actor, from, Now())
}

// Write sends the text.
func (th *thread) Write(s *Socket, text string) {
	th.actor.env.T.Helper()
	from := Now()
	o := th.Order(unix.SYS_SENDTO)
	_, err := o.do(th.actor.FD(s), o.Put([]byte(text)), uintptr(len(text)), unix.MSG_NOSIGNAL, 0, 0)
	th.actor.env.must(th.actor, unix.SYS_SENDTO, err)
	s.written += uint64(len(text))
	th.actor.env.noteStep(th.actor, from, Now())
}

// Read waits for data and returns it; "" is the end of the stream.
func (th *thread) Read(s *Socket) string {
	th.actor.env.T.Helper()
	from := Now()
	o := th.Order(unix.SYS_RECVFROM)
	buf := o.Put(make([]byte, 512))
	n, err := o.do(th.actor.FD(s), buf, 512, 0, 0, 0)
	if err != nil && !errors.Is(err, unix.ECONNRESET) {
		th.actor.env.must(th.actor, unix.SYS_RECVFROM, err)
	}
	th.noteRead(s, n, from)
	return string(o.got(buf, max(n, 0)))
}

// DropIncoming makes the socket drop every segment that comes in, until AllowIncoming.
func (th *thread) DropIncoming(s *Socket) {
	th.actor.env.T.Helper()
	defer th.noteLocking()()
	o := th.Order(unix.SYS_SETSOCKOPT)
	drop := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}
	program := struct {
		length uint64
		filter uintptr
	}{1, o.Put(bytesOf(&drop))}
	_, err := o.do(th.actor.FD(s), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, o.Put(bytesOf(&program)), unsafe.Sizeof(program))
	th.actor.env.must(th.actor, unix.SYS_SETSOCKOPT, err)
	s.dropping = true
}

// AllowIncoming ends DropIncoming, if it is in effect.
func (th *thread) AllowIncoming(s *Socket) {
	th.actor.env.T.Helper()
	if !s.dropping {
		return
	}
	s.dropping = false
	from := Now()
	th.SetInt(s, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
	th.actor.env.noteStep(th.actor, from, Now())
}

// Discard closes a socket after DropIncoming with a reset, so that no orphan is left.
func (th *thread) Discard(s *Socket) {
	th.actor.env.T.Helper()
	th.AllowIncoming(s)
	th.LingerZero(s)
	th.Close(s)
}

// AwaitState polls until the socket is in one of the states. It makes no transition.
func (th *thread) AwaitState(s *Socket, wanted ...tcplab.State) {
	th.actor.env.T.Helper()
	fd := int(th.actor.FD(s))
	th.actor.env.await(fmt.Sprintf("state %v of %s", wanted, s.What), func() bool {
		state := tcplab.State(th.getsockopt(fd, unix.IPPROTO_TCP, unix.TCP_INFO, 104)[0])
		for _, want := range wanted {
			if state == want {
				return true
			}
		}
		return false
	})
}
