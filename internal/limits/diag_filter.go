package limits

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// The operations of a filter for sock_diag: INET_DIAG_BC_JMP, INET_DIAG_BC_S_COND and
// INET_DIAG_BC_D_COND (include/uapi/linux/inet_diag.h).
const (
	opJump       = 1
	opSourceCond = 7
	opDestCond   = 8
)

const (
	opSize       = 4 // struct inet_diag_bc_op: code, yes, no
	hostCondSize = 8 // struct inet_diag_hostcond, without the address
	// maxFilterConds bounds the conditions of a filter: offsets in it have 16 bits.
	maxFilterConds = 1024
	// filterAttribute is INET_DIAG_REQ_BYTECODE.
	filterAttribute = 1
)

// hostCond is a condition on one end of a socket: its port and, unless addr is the zero Addr,
// its address. An IPv4 address also matches as v4-mapped.
type hostCond struct {
	addr netip.Addr
	port uint16
}

// peerFilter returns the attribute of a request: a filter that only sockets with one of these
// peers pass. It is nil (all pass) if there are too many peers.
func peerFilter(peers []tcp.Endpoint) []byte {
	conds := make([]hostCond, len(peers))
	for i, p := range peers {
		conds[i] = hostCond{p.Addr.Unmap(), p.Port}
	}
	return anyOf(opDestCond, conds)
}

// localPortFilter is like [peerFilter], for local ports.
func localPortFilter(ports []uint16) []byte {
	conds := make([]hostCond, len(ports))
	for i, port := range ports {
		conds[i].port = port
	}
	return anyOf(opSourceCond, conds)
}

// anyOf is the attribute of a request for sockets that meet at least one of the conditions. It
// is nil, so that the kernel leaves out none, without conditions or with too many.
//
// inet_diag_bc_run() skips "yes" bytes if a condition is true, and "no" bytes if it is false. It
// accepts a socket if it arrives exactly at the end, and refuses it four bytes behind the end.
// So a jump to the end follows each condition: a socket that meets it takes the jump. Any other
// socket skips it, and after the last condition arrives behind the end.
func anyOf(op byte, conds []hostCond) []byte {
	if len(conds) == 0 || len(conds) > maxFilterConds {
		return nil
	}
	size := 0
	for i := range conds {
		size += conds[i].size() + opSize
	}
	code := make([]byte, 0, 4+size)
	code = binary.NativeEndian.AppendUint16(code, uint16(4+size)) // struct nlattr
	code = binary.NativeEndian.AppendUint16(code, filterAttribute)
	for i := range conds {
		c := &conds[i]
		next := c.size() + opSize
		if i == len(conds)-1 {
			next += opSize // behind the end
		}
		code = c.appendTo(code, op, uint16(next))
		size -= c.size()
		code = append(code, opJump, opSize) // yes: not taken
		code = binary.NativeEndian.AppendUint16(code, uint16(size))
		size -= opSize
	}
	return code
}

func (c *hostCond) size() int { return opSize + hostCondSize + len(c.addr.AsSlice()) }

// appendTo appends the operation that tests the condition.
func (c *hostCond) appendTo(code []byte, op byte, no uint16) []byte {
	code = append(code, op, byte(c.size()))
	code = binary.NativeEndian.AppendUint16(code, no)
	code = append(code, c.family(), byte(c.addr.BitLen()), 0, 0)
	code = binary.NativeEndian.AppendUint32(code, uint32(c.port))
	return append(code, c.addr.AsSlice()...)
}

func (c *hostCond) family() byte {
	switch {
	case !c.addr.IsValid():
		return unix.AF_UNSPEC
	case c.addr.Is4():
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// EachWithPeer calls handle for each connection and timewait socket with one of the peers, of
// the namespace that the calling thread is in, except those in SYN_RECV: sockets of IPv4, IPv6
// and v4-mapped. Only New, Substate, Cookie, Local, Peer, UID (0 for a timewait socket), NoProcess and
// ExpiresIn are set. s is valid until handle returns. The kernel walks the whole table, and passes on only these
// sockets. While the table changes, it may list a socket twice or leave it out.
// With more than 1024 peers (maxFilterConds) EachWithPeer calls handle for every socket: the caller must
// check its peer.
func EachWithPeer(peers []tcp.Endpoint, handle func(s *tcp.Socket)) error {
	if len(peers) == 0 {
		return nil
	}
	var s tcp.Socket // reused, because handle must not keep it
	r := dumpRequest{states: connectionStates | 1<<tcp.LastAck | 1<<tcp.TimeWait, filter: peerFilter(peers)}
	return r.dump(func(m *diagMessage, _ []byte) {
		s = socket(m)
		handle(&s)
	})
}
