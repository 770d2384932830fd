package tcplab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// diagRequest is struct nlmsghdr and struct inet_diag_req_v2
// (include/uapi/linux/inet_diag.h). Ports and addresses are in network byte order.
type diagRequest struct {
	header                   unix.NlMsghdr
	family, protocol, ext, _ uint8
	states                   uint32
	sourcePort, destPort     [2]byte
	source, dest             [16]byte
	device                   uint32
	cookie                   [2]uint32
}

const (
	sockDiagByFamily = 20 // include/uapi/linux/sock_diag.h
	sockDestroy      = 21
)

func newDiagRequest(kind uint16, p *Endpoint) *diagRequest {
	r := &diagRequest{protocol: unix.IPPROTO_TCP, states: ^uint32(0), cookie: [2]uint32{^uint32(0), ^uint32(0)}}
	r.header = unix.NlMsghdr{Len: uint32(unsafe.Sizeof(*r)), Type: kind, Flags: unix.NLM_F_REQUEST | unix.NLM_F_ACK}
	r.family = unix.AF_INET6
	if p.Local.Addr().Is4() {
		r.family = unix.AF_INET
	}
	set := func(at netip.AddrPort, port *[2]byte, addr *[16]byte) {
		binary.BigEndian.PutUint16(port[:], at.Port())
		copy(addr[:], at.Addr().AsSlice())
	}
	set(p.Local, &r.sourcePort, &r.source)
	set(p.Remote, &r.destPort, &r.dest)
	return r
}

// Destroy is ss -K. Some kernels cannot destroy sockets, and some not timewait sockets.
func (n *Netns) Destroy(p *Endpoint) error {
	n.t.Helper()
	_, err := n.askDiag(newDiagRequest(sockDestroy, p))
	return err
}

// ExpiresIn returns the remaining time of a timewait socket as sock_diag reports it, to
// the millisecond.
func (n *Netns) ExpiresIn(p *Endpoint) (time.Duration, error) {
	n.t.Helper()
	answer, err := n.askDiag(newDiagRequest(sockDiagByFamily, p))
	if err != nil {
		return 0, err
	}
	const expiresAt = 52 // idiag_expires in struct inet_diag_msg
	if len(answer) < expiresAt+4 {
		return 0, fmt.Errorf("sock_diag: short answer of %d bytes", len(answer))
	}
	return time.Duration(binary.NativeEndian.Uint32(answer[expiresAt:])) * time.Millisecond, nil
}

// askDiag sends the request and returns the answer without its header.
func (n *Netns) askDiag(r *diagRequest) (answer []byte, err error) {
	n.Do(func() {
		var fd int
		if fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG); err != nil {
			return
		}
		defer unix.Close(fd)
		request := unsafe.Slice((*byte)(unsafe.Pointer(r)), unsafe.Sizeof(*r))
		if err = unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return
		}
		answer, err = firstAnswer(fd)
	})
	return answer, err
}

func firstAnswer(fd int) ([]byte, error) {
	buf := make([]byte, 8192)
	count, _, err := unix.Recvfrom(fd, buf, 0)
	if err != nil {
		return nil, err
	}
	const headerSize = 16
	if count < headerSize+4 {
		return nil, errors.New("sock_diag: short answer")
	}
	body := buf[headerSize:count]
	if binary.NativeEndian.Uint16(buf[4:]) == unix.NLMSG_ERROR {
		if code := int32(binary.NativeEndian.Uint32(body)); code != 0 {
			return nil, unix.Errno(-code)
		}
		return nil, nil
	}
	return body, nil
}
