package harness

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

// diagSocket is struct inet_diag_req_v2. Ports and addresses are in network byte order.
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

func diagNamed(s *Socket) *diagSocket {
	d := &diagSocket{Protocol: unix.IPPROTO_TCP, States: ^uint32(0), Cookie: [2]uint32{^uint32(0), ^uint32(0)}}
	d.Family = unix.AF_INET6
	if s.Local.Addr().Is4() {
		d.Family = unix.AF_INET
	}
	setEnd := func(end netip.AddrPort, port *[2]byte, addr *[16]byte) {
		if end.IsValid() {
			binary.BigEndian.PutUint16(port[:], end.Port())
			copy(addr[:], end.Addr().AsSlice())
		}
	}
	setEnd(s.Local, &d.SourcePort, &d.Source)
	setEnd(s.Peer, &d.DestPort, &d.Dest)
	return d
}

// Destroy is ss -K: the process destroys a socket that it does not have open. It skips
// the test on a kernel without CONFIG_INET_DIAG_DESTROY or without tcp_diag.
func (th *thread) Destroy(s *Socket) {
	env := th.actor.env
	env.T.Helper()
	from := Now()
	err := th.tryDestroy(diagNamed(s))
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOENT) && !env.hasDiag(th) {
		SkipUnlessRequired(env.T, expect.SocketDiag, err)
	}
	if err != nil {
		env.T.Fatalf("destroy %s: %v", s.What, err)
	}
	if s.Role == "listener" {
		s.ended = Now()
	}
	env.noteStep(th.actor, from, Now())
}

func (th *thread) tryDestroy(d *diagSocket) error {
	th.actor.env.T.Helper()
	return th.askDiag(diagRequest(sockDestroy, unix.NLM_F_REQUEST|unix.NLM_F_ACK, d))
}

// RequireDump skips the test where the kernel does not answer socket diagnosis (ss).
func (th *thread) RequireDump() {
	th.actor.env.T.Helper()
	all := &diagSocket{Family: unix.AF_INET, Protocol: unix.IPPROTO_TCP, States: ^uint32(0)}
	if err := th.askDiag(diagRequest(sockDiagByFamily, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, all)); err != nil {
		SkipUnlessRequired(th.actor.env.T, expect.SocketDiag, err)
	}
}

// askDiag returns the error in the kernel's answer.
func (th *thread) askDiag(request []byte) error {
	th.actor.env.T.Helper()
	fd := th.OpenDiag()
	defer th.CloseRaw(fd)
	o := th.Order(unix.SYS_SENDTO)
	if _, err := o.do(uintptr(fd), o.Put(request), uintptr(len(request)), 0, 0, 0); err != nil {
		return err
	}
	o = th.Order(unix.SYS_RECVFROM)
	at := o.Put(make([]byte, 512))
	_, err := o.do(uintptr(fd), at, 512, 0, 0, 0)
	th.actor.env.must(th.actor, unix.SYS_RECVFROM, err)
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

// OpenDiag opens a netlink socket for socket diagnosis and returns its descriptor.
func (th *thread) OpenDiag() int {
	th.actor.env.T.Helper()
	return th.Must(unix.SYS_SOCKET, unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_SOCK_DIAG)
}

// hasDiag reports whether ENOENT means that there is no such socket. The kernel also
// answers ENOENT without the module tcp_diag, which a guest cannot load. A listener can
// always be found, so hasDiag opens one and asks for it.
func (env *Env) hasDiag(th *thread) bool {
	env.T.Helper()
	probe := th.Listen(At(7998))
	defer th.Close(probe)
	return !errors.Is(th.tryDestroy(diagNamed(probe)), unix.ENOENT)
}
