package limits

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// memoryAttribute is INET_DIAG_SKMEMINFO: an attribute that is an array of 32-bit numbers,
// one of them the drops of the socket, SK_MEMINFO_DROPS (include/uapi/linux/sock_diag.h).
const (
	memoryAttribute = 7
	memoryDrops     = 8
)

// EachListener calls handle for each listening socket of the namespace that the calling thread
// is in. It walks the kernel's table of listeners, not that of connections. l is valid until
// handle returns. After an error of sock_diag the listeners that were handled before are valid.
func EachListener(handle func(l *tcp.Listener)) error {
	var l tcp.Listener // reused, because handle must not keep it
	return dump(1<<tcp.Listen, 1<<(memoryAttribute-1), func(m *diagMessage, attributes []byte) {
		l = tcp.Listener{
			Cookie: cookie(m), Local: endpoint(m.Family, m.ID.SourcePort, m.ID.Source),
			Queued: m.RQueue, Backlog: m.WQueue, Inode: m.Inode, UID: m.UID,
		}
		if memory := attribute(attributes, memoryAttribute); len(memory) >= 4*(memoryDrops+1) {
			l.Drops = binary.NativeEndian.Uint32(memory[4*memoryDrops:])
		}
		handle(&l)
	})
}

// EachUnaccepted calls handle for each connection on one of these local ports that no process
// has accepted yet, in the namespace that the calling thread is in: sockets in ESTABLISHED and
// CLOSE_WAIT without a file. The kernel walks the whole table, and passes on only the sockets
// of these ports. With more than 1024 ports it passes on those of all ports, and EachUnaccepted
// handles all of them: the caller must check the port. After an error of sock_diag the sockets that
// were handled before are valid.
func EachUnaccepted(ports []uint16, handle func(s tcp.UnacceptedSocket)) error {
	if len(ports) == 0 {
		return nil
	}
	r := dumpRequest{states: 1<<tcp.Established | 1<<tcp.CloseWait, filter: localPortFilter(ports)}
	return r.dump(func(m *diagMessage, _ []byte) {
		if m.Inode == 0 {
			handle(tcp.UnacceptedSocket{Cookie: cookie(m), Local: endpoint(m.Family, m.ID.SourcePort, m.ID.Source)})
		}
	})
}

// ListenDrops are counters of a network namespace, since it was made.
type ListenDrops struct {
	Overflows uint64 // segments that found the accept queue of a listener full (ListenOverflows)
	Drops     uint64 // segments that listeners dropped, for whatever reason (ListenDrops)
}

// ReadListenDrops reads the counters of the namespace that the calling thread is in.
func ReadListenDrops() (ListenDrops, error) {
	n, err := tcpCounters("ListenOverflows", "ListenDrops")
	if err != nil {
		return ListenDrops{}, err
	}
	return ListenDrops{Overflows: n[0], Drops: n[1]}, nil
}

// attribute returns the payload of the first attribute of a type, nil if there is none.
func attribute(attributes []byte, kind uint16) []byte {
	const headerSize = unix.SizeofNlAttr // struct nlattr: length and type
	for len(attributes) >= headerSize {
		size := int(binary.NativeEndian.Uint16(attributes))
		if size < headerSize || size > len(attributes) {
			return nil
		}
		if binary.NativeEndian.Uint16(attributes[2:]) == kind {
			return attributes[headerSize:size]
		}
		attributes = attributes[min(len(attributes), (size+3)&^3):]
	}
	return nil
}
