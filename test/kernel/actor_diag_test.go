package kernel_test

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/kernelmatrix/expect"
)

// include/uapi/linux/sock_diag.h and inet_diag.h
const (
	sockDiagByFamily = 20
	sockDestroy      = 21
	inetDiagInfo     = 2
)

// diagSocket is struct inet_diag_req_v2; ports and addresses in network order.
type diagSocket struct {
	Family, Protocol, Ext, _ uint8
	States                   uint32
	SourcePort, DestPort     [2]byte
	Source, Dest             [16]byte
	Interface                uint32
	Cookie                   [2]uint32
}

func diagRequest(kind uint16, flags int, d *diagSocket) []byte {
	header := unix.NlMsghdr{Type: kind, Flags: uint16(flags)}
	header.Len = uint32(unsafe.Sizeof(header) + unsafe.Sizeof(*d))
	return append(slices.Clone(bytesOf(&header)), bytesOf(d)...)
}

func diagNamed(s *sock) *diagSocket {
	d := &diagSocket{Protocol: unix.IPPROTO_TCP, States: ^uint32(0), Cookie: [2]uint32{^uint32(0), ^uint32(0)}}
	d.Family = unix.AF_INET6
	if s.local.Addr().Is4() {
		d.Family = unix.AF_INET
	}
	setEnd := func(end netip.AddrPort, port *[2]byte, addr *[16]byte) {
		if end.IsValid() {
			binary.BigEndian.PutUint16(port[:], end.Port())
			copy(addr[:], end.Addr().AsSlice())
		}
	}
	setEnd(s.local, &d.SourcePort, &d.Source)
	setEnd(s.peer, &d.DestPort, &d.Dest)
	return d
}

// destroy is ss -K: the process ends a socket that is not its own.
func (th *thread) destroy(s *sock) {
	w := th.a.w
	w.t.Helper()
	from := now()
	err := th.tryDestroy(diagNamed(s))
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOENT) && !w.hasDiag(th) {
		lacks(w.t, expect.SocketDiag, err)
	}
	if err != nil {
		w.t.Fatalf("destroy %s: %v", s.what, err)
	}
	if s.role == "listener" {
		s.ended = now()
	}
	w.stepped(th.a, from, now())
}

func (th *thread) tryDestroy(d *diagSocket) error {
	th.a.w.t.Helper()
	return th.askDiag(diagRequest(sockDestroy, unix.NLM_F_REQUEST|unix.NLM_F_ACK, d))
}

// requireDump leaves out what needs ss.
func (th *thread) requireDump() {
	th.a.w.t.Helper()
	all := &diagSocket{Family: unix.AF_INET, Protocol: unix.IPPROTO_TCP, States: ^uint32(0)}
	if err := th.askDiag(diagRequest(sockDiagByFamily, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, all)); err != nil {
		lacks(th.a.w.t, expect.SocketDiag, err)
	}
}

// askDiag gives the error in the kernel's answer.
func (th *thread) askDiag(request []byte) error {
	th.a.w.t.Helper()
	fd := th.openDiag()
	defer th.closeRaw(fd)
	o := th.order(unix.SYS_SENDTO)
	if _, err := o.do(uintptr(fd), o.put(request), uintptr(len(request)), 0, 0, 0); err != nil {
		return err
	}
	o = th.order(unix.SYS_RECVFROM)
	at := o.put(make([]byte, 512))
	_, err := o.do(uintptr(fd), at, 512, 0, 0, 0)
	th.a.w.must(th.a, unix.SYS_RECVFROM, err)
	const typeAt, headerSize = 4, 16
	if binary.NativeEndian.Uint16(o.got(at+typeAt, 2)) != unix.NLMSG_ERROR {
		return nil
	}
	code := int32(binary.NativeEndian.Uint32(o.got(at+headerSize, 4)))
	if code != 0 {
		return unix.Errno(-code)
	}
	return nil
}

func (th *thread) openDiag() int {
	th.a.w.t.Helper()
	return th.must(unix.SYS_SOCKET, unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_SOCK_DIAG)
}

// hasDiag: the kernel answers ENOENT also for want of the module tcp_diag, which a
// guest cannot load. A listener can always be found, so make one and look.
func (w *world) hasDiag(th *thread) bool {
	w.t.Helper()
	probe := th.listen(at(7998))
	defer th.close(probe)
	return !errors.Is(th.tryDestroy(diagNamed(probe)), unix.ENOENT)
}
