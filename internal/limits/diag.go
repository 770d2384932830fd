package limits

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// include/uapi/linux/sock_diag.h and inet_diag.h
const sockDiagByFamily = 20

// diagRequest is struct inet_diag_req_v2 behind a header.
type diagRequest struct {
	Header              unix.NlMsghdr
	Family, Protocol, _ uint8
	_                   uint8
	States              uint32
	_                   diagID
}

// diagID is struct inet_diag_sockid; ports and addresses are in network order.
type diagID struct {
	SourcePort, DestPort [2]byte
	Source, Dest         [16]byte
	Interface            uint32
	Cookie               [2]uint32
}

// diagMessage is struct inet_diag_msg.
type diagMessage struct {
	Family, State, Timer, Retrans       uint8
	ID                                  diagID
	Expires, RQueue, WQueue, UID, Inode uint32
}

// timerTimeWait is what inet_diag says of a timewait socket, whose state it gives
// by its substate.
const timerTimeWait = 3

// boundPorts are those that listeners have, and, since Linux 6.8, sockets that are
// bound and not connected. It walks the tables of these only.
func boundPorts() (ports []uint16, err error) {
	err = dump(1<<tcp.Listen|1<<tcp.BoundInactive, func(m *diagMessage) {
		ports = append(ports, binary.BigEndian.Uint16(m.ID.SourcePort[:]))
	})
	return ports, err
}

// SocketsHere hands over, each until handle returns, the connections of the namespace
// that the calling thread is in, timewait sockets included, as far as the kernel's
// table of them tells: no owner, no role. It walks that whole table.
func SocketsHere(handle func(s *tcp.Socket)) error {
	const connections = 1<<tcp.Established | 1<<tcp.SynSent | 1<<tcp.FinWait1 | 1<<tcp.FinWait2 | 1<<tcp.TimeWait |
		1<<tcp.CloseWait | 1<<tcp.Closing
	var s tcp.Socket // one for all: handle keeps none
	return dump(connections, func(m *diagMessage) {
		s = socket(m)
		handle(&s)
	})
}

// HalfClosedHere hands over only the timewait sockets whose peer has not closed yet.
func HalfClosedHere(handle func(s *tcp.Socket)) error {
	var s tcp.Socket
	return dump(1<<tcp.FinWait2, func(m *diagMessage) {
		if m.Timer == timerTimeWait {
			s = socket(m)
			handle(&s)
		}
	})
}

func socket(m *diagMessage) (s tcp.Socket) {
	s.New = tcp.State(m.State)
	s.Cookie = uint64(m.ID.Cookie[1])<<32 | uint64(m.ID.Cookie[0])
	s.Local = endpoint(m.Family, m.ID.SourcePort, m.ID.Source)
	s.Peer = endpoint(m.Family, m.ID.DestPort, m.ID.Dest)
	if m.Timer == timerTimeWait {
		s.New, s.Substate = tcp.TimeWait, tcp.State(m.State)
		s.ExpiresIn = time.Duration(m.Expires) * time.Millisecond
	}
	return s
}

func endpoint(family uint8, port [2]byte, raw [16]byte) tcp.Endpoint {
	e := tcp.Endpoint{Port: binary.BigEndian.Uint16(port[:])}
	if family == unix.AF_INET {
		e.Addr = netip.AddrFrom4([4]byte(raw[:4]))
	} else {
		e.Addr = netip.AddrFrom16(raw).Unmap()
	}
	return e
}

// dump asks for the sockets in these states, of both families.
func dump(states uint32, handle func(m *diagMessage)) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return fmt.Errorf("open sock_diag: %w", err)
	}
	defer unix.Close(fd)
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		request := diagRequest{Family: family, Protocol: unix.IPPROTO_TCP, States: states}
		request.Header = unix.NlMsghdr{
			Len: uint32(unsafe.Sizeof(request)), Type: sockDiagByFamily, Flags: unix.NLM_F_REQUEST | unix.NLM_F_DUMP,
		}
		raw := unsafe.Slice((*byte)(unsafe.Pointer(&request)), unsafe.Sizeof(request))
		if err := unix.Sendto(fd, raw, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return fmt.Errorf("ask sock_diag: %w", err)
		}
		if err := receive(fd, handle); err != nil {
			return err
		}
	}
	return nil
}

func receive(fd int, handle func(m *diagMessage)) error {
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err == unix.EINTR { //nolint:errorlint // straight from the system call
			continue
		}
		if err != nil {
			return fmt.Errorf("read sock_diag: %w", err)
		}
		done, err := messages(buf[:n], handle)
		if done || err != nil {
			return err
		}
	}
}

// messages takes apart what one read gave.
func messages(raw []byte, handle func(m *diagMessage)) (done bool, err error) {
	const headerSize = int(unsafe.Sizeof(unix.NlMsghdr{}))
	for len(raw) >= headerSize {
		var header unix.NlMsghdr
		copy(unsafe.Slice((*byte)(unsafe.Pointer(&header)), headerSize), raw)
		size := int(header.Len)
		if size < headerSize || size > len(raw) {
			return false, fmt.Errorf("read sock_diag: a message of %d bytes in %d", size, len(raw))
		}
		switch body := raw[headerSize:size]; {
		case header.Type == unix.NLMSG_DONE:
			return true, nil
		case header.Type == unix.NLMSG_ERROR && len(body) >= 4:
			return true, fmt.Errorf("ask sock_diag: %w", unix.Errno(-int32(binary.NativeEndian.Uint32(body))))
		case len(body) >= int(unsafe.Sizeof(diagMessage{})):
			var m diagMessage
			copy(unsafe.Slice((*byte)(unsafe.Pointer(&m)), unsafe.Sizeof(m)), body)
			handle(&m)
		}
		raw = raw[min(len(raw), (size+3)&^3):]
	}
	return false, nil
}
