package limits

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/boottime"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// sockDiagByFamily is SOCK_DIAG_BY_FAMILY (include/uapi/linux/sock_diag.h).
const sockDiagByFamily = 20

// diagRequest is a netlink header and struct inet_diag_req_v2
// (include/uapi/linux/inet_diag.h).
type diagRequest struct {
	Header           unix.NlMsghdr
	Family, Protocol uint8
	Extensions       uint8 // attributes to add: bit n-1 for attribute n
	_                uint8
	States           uint32
	_                diagID
}

// diagID is struct inet_diag_sockid. Ports and addresses are in network byte order.
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

// infoAttribute is INET_DIAG_INFO: an attribute that is a struct tcp_info.
const infoAttribute = 2

// timerTimeWait is the value of diagMessage.Timer for a timewait socket. Its State is
// the substate.
const timerTimeWait = 3

// boundPorts calls handle for the port of each listener and, since Linux 6.8, of each socket
// that is bound and not connected. For a request with any state besides LISTEN inet_diag also
// walks the whole table of connections, once for each family, although it returns none of them.
// Before Linux 6.8 it does so in vain.
func boundPorts(handle func(port uint16)) error {
	return dump(1<<tcp.Listen|1<<tcp.BoundInactive, 0, func(m *diagMessage, _ []byte) {
		handle(binary.BigEndian.Uint16(m.ID.SourcePort[:]))
	})
}

// connectionStates are the states of connections except SYN_RECV and LAST_ACK.
const connectionStates = 1<<tcp.Established | 1<<tcp.SynSent | 1<<tcp.FinWait1 | 1<<tcp.FinWait2 | 1<<tcp.CloseWait | 1<<tcp.Closing

// EachConnectionOrTimeWait calls handle for each connection and each timewait socket of the namespace
// that the calling thread is in. It leaves out connections in SYN_RECV and LAST_ACK. handle runs on the
// calling thread; s is valid until it returns.
//
// Of s only New, Substate, Cookie, Local, Peer, UID (0 for a timewait socket), NoProcess, ExpiresIn and
// Monotonic are set. Monotonic is when the kernel listed the socket, some milliseconds late at most.
// ExpiresIn counts from then.
//
// The kernel walks the whole table. After an error of sock_diag the sockets that were handled before
// are valid.
func EachConnectionOrTimeWait(handle func(s *tcp.Socket)) error {
	var s tcp.Socket // reused, because handle must not keep it
	r := dumpRequest{states: connectionStates | 1<<tcp.TimeWait}
	return r.dump(func(m *diagMessage, _ []byte) {
		s = socket(m)
		s.Monotonic = r.listedAt
		handle(&s)
	})
}

// EachOpenOrFinWait2 is like [EachConnectionOrTimeWait], but leaves out timewait sockets, except those in
// FIN_WAIT2: a request for FIN_WAIT2 lists them as well. The New of a timewait socket is TimeWait. Monotonic is not set.
func EachOpenOrFinWait2(handle func(s *tcp.Socket)) error {
	var s tcp.Socket
	return dump(connectionStates, 0, func(m *diagMessage, _ []byte) {
		s = socket(m)
		handle(&s)
	})
}

// EachFinWait2 is like [EachConnectionOrTimeWait], but only for the sockets in FIN_WAIT2, whose peers
// have not closed yet: timewait sockets with that substate, and connections. Monotonic is not set.
func EachFinWait2(handle func(s *tcp.Socket)) error {
	var s tcp.Socket
	return dump(1<<tcp.FinWait2, 0, func(m *diagMessage, _ []byte) {
		s = socket(m)
		handle(&s)
	})
}

// EachCloseWait calls handle for each socket in CLOSE_WAIT of the namespace that the calling
// thread is in, and walks the whole table for them. After an error of sock_diag the sockets
// that were handled before are valid.
func EachCloseWait(handle func(s tcp.CloseWaitSocket)) error {
	return dump(1<<tcp.CloseWait, 1<<(infoAttribute-1), func(m *diagMessage, attributes []byte) {
		s := tcp.CloseWaitSocket{Cookie: cookie(m), SendQueued: m.WQueue > 0, Accepted: m.Inode != 0}
		s.SinceSent = sinceSent(attributes)
		handle(s)
	})
}

// sinceSent is tcpi_last_data_sent: the time since the last data were sent. It is 0 if there
// is no such attribute.
func sinceSent(attributes []byte) time.Duration {
	var info unix.TCPInfo
	raw, at := attribute(attributes, infoAttribute), int(unsafe.Offsetof(info.Last_data_sent))
	if len(raw) < at+4 {
		return 0
	}
	return time.Duration(binary.NativeEndian.Uint32(raw[at:])) * time.Millisecond
}

func cookie(m *diagMessage) uint64 { return uint64(m.ID.Cookie[1])<<32 | uint64(m.ID.Cookie[0]) }

func socket(m *diagMessage) (s tcp.Socket) {
	s.New, s.NoProcess, s.UID = tcp.State(m.State), m.Inode == 0, m.UID
	s.Cookie = cookie(m)
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

// diagHandler takes one socket, and the attributes behind its message.
type diagHandler func(m *diagMessage, attributes []byte)

// dumpRequest is which sockets sock_diag is to list.
type dumpRequest struct {
	states     uint32 // one bit for each state
	extensions uint8  // see diagRequest
	filter     []byte // an attribute; nil: all

	// listedAt is when the kernel had listed the sockets that are being handled. It lists those of
	// the first message in sendto(), and those of each other one in the recvfrom() of the one before
	// (netlink_recvmsg() in net/netlink/af_netlink.c): so it does not matter how long handling takes.
	listedAt time.Duration
}

// dump requests the TCP sockets of both families in these states.
func dump(states uint32, extensions uint8, handle diagHandler) error {
	r := dumpRequest{states: states, extensions: extensions}
	return r.dump(handle)
}

func (r *dumpRequest) dump(handle diagHandler) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return fmt.Errorf("open sock_diag: %w", err)
	}
	defer unix.Close(fd)
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		if err := unix.Sendto(fd, r.message(family), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return fmt.Errorf("send to sock_diag: %w", err)
		}
		if err := r.receive(fd, handle); err != nil {
			return err
		}
	}
	return nil
}

// message is the netlink message for one family.
func (r *dumpRequest) message(family uint8) []byte {
	m := diagRequest{Family: family, Protocol: unix.IPPROTO_TCP, Extensions: r.extensions, States: r.states}
	m.Header = unix.NlMsghdr{
		Len: uint32(int(unsafe.Sizeof(m)) + len(r.filter)), Type: sockDiagByFamily, Flags: unix.NLM_F_REQUEST | unix.NLM_F_DUMP,
	}
	return append(slices.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&m)), unsafe.Sizeof(m))), r.filter...)
}

// receive reads and handles the whole answer to one request.
func (r *dumpRequest) receive(fd int, handle diagHandler) error {
	buf := make([]byte, 64<<10)
	next := boottime.Now()
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		r.listedAt, next = next, boottime.Now()
		if err == unix.EINTR { //nolint:errorlint // straight from the system call
			continue
		}
		if err != nil {
			return fmt.Errorf("read sock_diag: %w", err)
		}
		done, err := parseMessages(buf[:n], handle)
		if done || err != nil {
			return err
		}
	}
}

// parseMessages parses the netlink messages of one read. It reports done at the end of the
// answer.
func parseMessages(raw []byte, handle diagHandler) (done bool, err error) {
	const headerSize = int(unsafe.Sizeof(unix.NlMsghdr{}))
	for len(raw) >= headerSize {
		var header unix.NlMsghdr
		copy(unsafe.Slice((*byte)(unsafe.Pointer(&header)), headerSize), raw)
		size := int(header.Len)
		if size < headerSize || size > len(raw) {
			return false, fmt.Errorf("read sock_diag: message length %d in a buffer of %d bytes", size, len(raw))
		}
		switch body := raw[headerSize:size]; {
		case header.Type == unix.NLMSG_DONE:
			return true, dumpError(body)
		case header.Type == unix.NLMSG_ERROR && len(body) >= 4:
			return true, fmt.Errorf("request sockets from sock_diag: %w", unix.Errno(-int32(binary.NativeEndian.Uint32(body))))
		case len(body) >= int(unsafe.Sizeof(diagMessage{})):
			var m diagMessage
			copy(unsafe.Slice((*byte)(unsafe.Pointer(&m)), unsafe.Sizeof(m)), body)
			handle(&m, body[unsafe.Sizeof(m):])
		}
		raw = raw[min(len(raw), (size+3)&^3):]
	}
	return false, nil
}

// dumpError is the error that ended a dump: netlink_dump() puts it into NLMSG_DONE, as a
// negative number (net/netlink/af_netlink.c). The sockets before it are then only a part.
func dumpError(done []byte) error {
	if len(done) < 4 {
		return nil
	}
	if code := int32(binary.NativeEndian.Uint32(done)); code < 0 {
		return fmt.Errorf("read sock_diag: the dump ended early: %w", unix.Errno(-code))
	}
	return nil
}
