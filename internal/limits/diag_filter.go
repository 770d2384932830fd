package limits

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// The operations of a filter for sock_diag: INET_DIAG_BC_JMP and INET_DIAG_BC_D_COND
// (include/uapi/linux/inet_diag.h).
const (
	opJump     = 1
	opDestCond = 8
)

const (
	opSize       = 4 // struct inet_diag_bc_op: code, yes, no
	hostCondSize = 8 // struct inet_diag_hostcond, without the address
	// maxFilterPeers bounds the peers of a filter: offsets in it have 16 bits.
	maxFilterPeers = 1024
	// filterAttribute is INET_DIAG_REQ_BYTECODE.
	filterAttribute = 1
)

// peerFilter is the attribute of a request that makes the kernel leave out the sockets with
// other peers. It is nil, so that the kernel leaves out none, if there are too many peers. An
// IPv4 peer also matches as v4-mapped.
//
// inet_diag_bc_run() skips "yes" bytes if a condition is true, and "no" bytes if it is false. It
// accepts a socket if it arrives exactly at the end, and refuses it four bytes behind the end.
// So a jump to the end follows each condition: a socket with that peer takes it. Any other
// socket skips it, and after the last condition arrives behind the end.
func peerFilter(peers []tcp.Endpoint) []byte {
	if len(peers) == 0 || len(peers) > maxFilterPeers {
		return nil
	}
	size := 0
	for _, p := range peers {
		size += condSize(p) + opSize
	}
	code := make([]byte, 0, 4+size)
	code = binary.NativeEndian.AppendUint16(code, uint16(4+size)) // struct nlattr
	code = binary.NativeEndian.AppendUint16(code, filterAttribute)
	for i, p := range peers {
		next := condSize(p) + opSize
		if i == len(peers)-1 {
			next += opSize // behind the end
		}
		code = appendCond(code, p, uint16(next))
		size -= condSize(p)
		code = append(code, opJump, opSize) // yes: not taken
		code = binary.NativeEndian.AppendUint16(code, uint16(size))
		size -= opSize
	}
	return code
}

func condSize(p tcp.Endpoint) int { return opSize + hostCondSize + len(p.Addr.Unmap().AsSlice()) }

// appendCond appends the condition that a socket has this peer.
func appendCond(code []byte, p tcp.Endpoint, no uint16) []byte {
	addr := p.Addr.Unmap()
	code = append(code, opDestCond, byte(condSize(p)))
	code = binary.NativeEndian.AppendUint16(code, no)
	code = append(code, family(addr), byte(addr.BitLen()), 0, 0)
	code = binary.NativeEndian.AppendUint32(code, uint32(p.Port))
	return append(code, addr.AsSlice()...)
}

func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// EachWithPeer calls handle for each connection and timewait socket with one of the peers, of
// the namespace that the calling thread is in, except those in SYN_RECV: sockets of IPv4, IPv6
// and v4-mapped. Only New, Substate, Cookie, Local, Peer, Orphan and ExpiresIn are set. s is
// valid until handle returns. The kernel walks the whole table, and passes on only these
// sockets. While the table changes, it may list a socket twice or leave it out.
// With more than maxFilterPeers peers EachWithPeer calls handle for every socket: the caller must
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
