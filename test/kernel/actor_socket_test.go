package kernel_test

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

var loopback = netip.MustParseAddr("127.0.0.1")

func everywhere(port uint16) netip.AddrPort { return netip.AddrPortFrom(netip.IPv4Unspecified(), port) }

func at(port uint16) netip.AddrPort { return netip.AddrPortFrom(loopback, port) }

// fd is the lowest number that the socket has in the process.
func (a *actor) fd(s *sock) uintptr {
	a.w.t.Helper()
	lowest := -1
	for fd, slot := range a.table.slots {
		if slot.s == s && (lowest < 0 || fd < lowest) {
			lowest = fd
		}
	}
	if lowest < 0 {
		a.w.t.Fatalf("%s does not have %s", a.name(), s.what)
	}
	return uintptr(lowest)
}

// adopt puts a new descriptor into the process's table.
func (a *actor) adopt(fd int, s *sock) {
	a.table.slots[fd] = slot{s: s}
}

// socket makes a TCP socket, or an MPTCP one.
func (th *thread) socket(like netip.Addr, protocol int) *sock {
	w := th.a.w
	w.t.Helper()
	domain := unix.AF_INET6
	if like.Is4() {
		domain = unix.AF_INET
	}
	from := now()
	fd := th.must(unix.SYS_SOCKET, uintptr(domain), unix.SOCK_STREAM, uintptr(protocol))
	return w.newSock(th, fd, from, fmt.Sprintf("socket %d", len(w.socks)))
}

// newSock notes a descriptor that a system call has just made.
func (w *world) newSock(th *thread, fd int, from moment, what string) *sock {
	w.t.Helper()
	s := &sock{what: what}
	w.socks = append(w.socks, s)
	th.a.adopt(fd, s)
	th.identify(s, fd)
	if th.apart {
		s.inode = "" // the leader's table does not show it
	}
	s.uids.add(from, now(), th.a.uid)
	w.stepped(th.a, from, now())
	return s
}

// identify reads the cookie and the inode.
func (th *thread) identify(s *sock, fd int) {
	w := th.a.w
	w.t.Helper()
	b := th.getsockopt(fd, unix.SOL_SOCKET, unix.SO_COOKIE, 8)
	s.conn = conn(binary.NativeEndian.Uint64(b))
	var err error
	s.inode, err = os.Readlink(fmt.Sprintf("/proc/%d/task/%d/fd/%d", th.a.pid, th.tid, fd))
	if err != nil {
		w.t.Fatal(err)
	}
}

// atWork notes what takes a socket's lock and changes nothing by itself: a segment
// that has come in meanwhile is then handled by this thread.
func (th *thread) atWork() (done func()) {
	from := now()
	return func() { th.a.w.steps = append(th.a.w.steps, step{th.a, from, now()}) }
}

func (th *thread) getsockopt(fd, level, option, size int) []byte {
	th.a.w.t.Helper()
	defer th.atWork()()
	o := th.order(unix.SYS_GETSOCKOPT)
	value, length := o.put(make([]byte, size)), int32(size)
	_, err := o.do(uintptr(fd), uintptr(level), uintptr(option), value, o.put(bytesOf(&length)))
	th.a.w.must(th.a, unix.SYS_GETSOCKOPT, err)
	return o.got(value, size)
}

func (th *thread) setsockopt(s *sock, level, option int, value []byte) {
	th.a.w.t.Helper()
	defer th.atWork()()
	o := th.order(unix.SYS_SETSOCKOPT)
	_, err := o.do(th.a.fd(s), uintptr(level), uintptr(option), o.put(value), uintptr(len(value)))
	th.a.w.must(th.a, unix.SYS_SETSOCKOPT, err)
}

func (th *thread) setInt(s *sock, level, option int, value int32) {
	th.a.w.t.Helper()
	th.setsockopt(s, level, option, bytesOf(&value))
}

func (th *thread) bind(s *sock, to netip.AddrPort) {
	th.a.w.t.Helper()
	o, name := th.order(unix.SYS_BIND), rawSockaddr(to)
	_, err := o.do(th.a.fd(s), o.put(name), uintptr(len(name)))
	th.a.w.must(th.a, unix.SYS_BIND, err)
	s.local = to
}

// listen makes a listener; the options run between socket and bind.
func (th *thread) listen(on netip.AddrPort, options ...func(*sock)) *sock {
	th.a.w.t.Helper()
	s := th.socket(on.Addr(), unix.IPPROTO_TCP)
	th.setInt(s, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	for _, option := range options {
		option(s)
	}
	th.bind(s, on)
	th.startListening(s)
	return s
}

func (th *thread) startListening(s *sock) {
	th.a.w.t.Helper()
	from := now()
	if s.role != "listener" { // listening anew is no transition
		s.noteOperation(th.a, from)
	}
	th.must(unix.SYS_LISTEN, th.a.fd(s), 4096)
	s.role, s.what = "listener", fmt.Sprintf("listener on %v", s.local)
	th.a.w.stepped(th.a, from, now())
}

// dial makes a client and connects it.
func (th *thread) dial(to netip.AddrPort) *sock {
	th.a.w.t.Helper()
	s := th.socket(to.Addr(), unix.IPPROTO_TCP)
	th.connect(s, to)
	return s
}

func (th *thread) connect(s *sock, to netip.AddrPort) {
	th.a.w.t.Helper()
	th.a.w.must(th.a, unix.SYS_CONNECT, th.tryConnect(s, to))
}

func (th *thread) tryConnect(s *sock, to netip.AddrPort) error {
	w := th.a.w
	w.t.Helper()
	from := now()
	s.noteOperation(th.a, from)
	s.role, s.what = "client", fmt.Sprintf("client %s to %v", s.conn, to)
	o, name := th.order(unix.SYS_CONNECT), rawSockaddr(to)
	_, err := o.do(th.a.fd(s), o.put(name), uintptr(len(name)))
	th.learnAddrs(s)
	w.stepped(th.a, from, now())
	return err
}

// dialFast connects with the text in the SYN. Without waiting the client is deaf and
// does not learn of an answer.
func (th *thread) dialFast(to netip.AddrPort, text string, flags uintptr) *sock {
	w := th.a.w
	w.t.Helper()
	s := th.socket(to.Addr(), unix.IPPROTO_TCP)
	if flags&unix.MSG_DONTWAIT != 0 {
		th.deaf(s)
	}
	s.role, s.what = "client", fmt.Sprintf("client %s to %v", s.conn, to)
	from := now()
	s.noteOperation(th.a, from)
	o, name := th.order(unix.SYS_SENDTO), rawSockaddr(to)
	_, err := o.do(th.a.fd(s), o.put([]byte(text)), uintptr(len(text)), flags|unix.MSG_FASTOPEN|unix.MSG_NOSIGNAL,
		o.put(name), uintptr(len(name)))
	w.must(th.a, unix.SYS_SENDTO, err)
	th.learnAddrs(s)
	w.stepped(th.a, from, now())
	return s
}

// learnAddrs reads what the socket has by now; it may not have a peer.
func (th *thread) learnAddrs(s *sock) {
	for call, to := range map[uintptr]*netip.AddrPort{unix.SYS_GETSOCKNAME: &s.local, unix.SYS_GETPEERNAME: &s.peer} {
		o := th.order(call)
		var name unix.RawSockaddrInet6
		length := int32(unsafe.Sizeof(name))
		value := o.put(bytesOf(&name))
		if _, err := o.do(th.a.fd(s), value, o.put(bytesOf(&length))); err != nil {
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

// accept takes a connection from a listener, waiting for it.
func (th *thread) accept(listener *sock) *sock {
	w := th.a.w
	w.t.Helper()
	from := now()
	fd := th.must(unix.SYS_ACCEPT4, th.a.fd(listener), 0, 0, 0)
	return th.accepted(listener, fd, from)
}

func (th *thread) accepted(listener *sock, fd int, from moment) *sock {
	w := th.a.w
	w.t.Helper()
	s := w.newSock(th, fd, from, fmt.Sprintf("connection accepted by %s", th.a.name()))
	s.listeners, s.role, s.beforeTracing = []*sock{listener}, "server", w.traced < 0
	// Until it is accepted it has the listener's user, then its own.
	s.uids = append(history[int]{{0, 0, listener.uids[0].value}}, s.uids...)
	th.learnAddrs(s)
	return s
}

// unaccepted notes the child that a client's connection made and nobody accepts.
func (w *world) unaccepted(listener, client *sock) *sock {
	s := &sock{
		what: "unaccepted child of " + listener.what, role: "server", listeners: []*sock{listener}, byPorts: true,
		local: client.peer, peer: client.local,
	}
	s.uids = listener.uids
	w.socks = append(w.socks, s)
	return s
}

func (th *thread) shutdown(s *sock, how int) {
	th.a.w.t.Helper()
	from := now()
	s.noteOperation(th.a, from)
	th.must(unix.SYS_SHUTDOWN, th.a.fd(s), uintptr(how))
	if s.role == "listener" {
		s.ended = now()
	}
	th.a.w.stepped(th.a, from, now())
}

// disconnect is connect to AF_UNSPEC.
func (th *thread) disconnect(s *sock) {
	th.a.w.t.Helper()
	from := now()
	s.noteOperation(th.a, from)
	o := th.order(unix.SYS_CONNECT)
	_, err := o.do(th.a.fd(s), o.put(make([]byte, 16)), 16)
	th.a.w.must(th.a, unix.SYS_CONNECT, err)
	th.a.w.stepped(th.a, from, now())
}

// close closes every descriptor that the process has of the sockets.
func (th *thread) close(socks ...*sock) {
	th.a.w.t.Helper()
	for _, s := range socks {
		for th.a.table.has(s) {
			th.closeFD(th.a.fd(s))
		}
	}
}

func (th *thread) closeFD(fd uintptr) {
	th.a.w.t.Helper()
	from := now()
	s := th.a.table.slots[int(fd)].s
	delete(th.a.table.slots, int(fd))
	th.a.w.noteRelease(th.a, s, from)
	th.must(unix.SYS_CLOSE, fd)
	th.a.w.stepped(th.a, from, now())
}

// dupTo is dup2.
func (th *thread) dupTo(s *sock, fd int) {
	th.a.w.t.Helper()
	from := now()
	th.must(unix.SYS_DUP3, th.a.fd(s), uintptr(fd), 0)
	th.a.adopt(fd, s)
	th.a.w.stepped(th.a, from, now())
}

func (th *thread) write(s *sock, text string) {
	th.a.w.t.Helper()
	from := now()
	o := th.order(unix.SYS_SENDTO)
	_, err := o.do(th.a.fd(s), o.put([]byte(text)), uintptr(len(text)), unix.MSG_NOSIGNAL, 0, 0)
	th.a.w.must(th.a, unix.SYS_SENDTO, err)
	th.a.w.stepped(th.a, from, now())
}

// read waits for data; "" is the end of the stream.
func (th *thread) read(s *sock) string {
	th.a.w.t.Helper()
	from := now()
	o := th.order(unix.SYS_RECVFROM)
	buf := o.put(make([]byte, 512))
	n, err := o.do(th.a.fd(s), buf, 512, 0, 0, 0)
	if err != nil && !errors.Is(err, unix.ECONNRESET) {
		th.a.w.must(th.a, unix.SYS_RECVFROM, err)
	}
	th.a.w.stepped(th.a, from, now())
	return string(o.got(buf, max(n, 0)))
}

// deaf makes the socket lose every segment that comes in; hear ends that.
func (th *thread) deaf(s *sock) {
	th.a.w.t.Helper()
	defer th.atWork()()
	o := th.order(unix.SYS_SETSOCKOPT)
	drop := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}
	program := struct {
		length uint64
		filter uintptr
	}{1, o.put(bytesOf(&drop))}
	_, err := o.do(th.a.fd(s), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, o.put(bytesOf(&program)), unsafe.Sizeof(program))
	th.a.w.must(th.a, unix.SYS_SETSOCKOPT, err)
	s.deaf = true
}

func (th *thread) hear(s *sock) {
	th.a.w.t.Helper()
	if !s.deaf {
		return
	}
	s.deaf = false
	from := now()
	th.setInt(s, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
	th.a.w.stepped(th.a, from, now())
}

// abandon closes a deaf socket so that nothing is left of it.
func (th *thread) abandon(s *sock) {
	th.a.w.t.Helper()
	th.hear(s)
	th.lingerZero(s)
	th.close(s)
}

// awaitState waits until the socket is in one of the states, without an operation.
func (th *thread) awaitState(s *sock, wanted ...tcplab.State) {
	th.a.w.t.Helper()
	fd := int(th.a.fd(s))
	th.a.w.await(fmt.Sprintf("state %v of %s", wanted, s.what), func() bool {
		state := tcplab.State(th.getsockopt(fd, unix.IPPROTO_TCP, unix.TCP_INFO, 104)[0])
		for _, want := range wanted {
			if state == want {
				return true
			}
		}
		return false
	})
}
