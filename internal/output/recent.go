package output

import (
	"bytes"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxResent bounds the lines that a new connection gets again, in bytes: the largest receive buffer of recent
	// kernels (32 MiB, net.ipv4.tcp_rmem) and the largest send buffer (4 MiB, net.ipv4.tcp_wmem).
	maxResent = 36 << 20
	// RemoteKept is how many bytes an output to a socket keeps at most besides its queue: the lines that a new connection
	// gets again, in a buffer that grows by a quarter at a time, and what it has got of them.
	RemoteKept = 3 * maxResent
	// readAhead is how many bytes a reader may have read and not used when it ends. rsyslog's imptcp reads
	// 128 KiB at a time, other collectors 64 KiB or less.
	readAhead = 256 << 10
)

// recentLines are the last lines of an output to a socket: those that its reader may not have used.
// A write succeeds as soon as this host's kernel has the bytes. They wait in this kernel for the peer's
// kernel, and in the peer's kernel for the reader, which reads many at once. If the connection ends
// meanwhile, they are lost.
type recentLines struct {
	lines  []byte
	limit  int // bytes that are kept, at most maxResent; 0: maxResent
	window int // the largest result of unused so far, in bytes

	offered int       // TCP: the largest receive window that the reader's kernel has offered before a write, in bytes
	behind  int       // TCP: bytes since the reader had read all that the connection had got
	emptyAt time.Time // TCP: since then each look has found nothing unread; zero: the last one did not
}

// emptyFor is how long each look must find nothing unread. A receive buffer that grows shows the same for a moment.
const emptyFor = 100 * time.Millisecond

// look notes, before conn gets lines, whether its reader has read all that it has got before.
func (r *recentLines) look(conn net.Conn) {
	q, ok := queuesOf(conn)
	if !ok || !q.isTCP {
		return
	}
	// What is not read makes the window smaller; an eighth is left for its rounding.
	now := time.Now()
	switch {
	case q.waiting > 0 || q.window > r.offered || q.window < r.offered-r.offered/8:
		r.emptyAt = time.Time{}
	case r.emptyAt.IsZero():
		r.emptyAt = now
	case now.Sub(r.emptyAt) >= emptyFor:
		r.behind = 0
	}
	r.offered = max(r.offered, q.window)
}

// add takes whole lines that conn has got.
func (r *recentLines) add(lines []byte, conn net.Conn) {
	if len(lines) == 0 {
		return
	}
	bytes, isTCP := unused(conn)
	r.window = max(r.window, bytes)
	if isTCP {
		r.behind += len(lines)
	}
	if size := r.size(); len(r.lines) > size+min(size, maxResent/4) {
		r.lines = append(r.lines[:0], r.tail()...)
	}
	r.lines = append(r.lines, lines...)
}

// size is how many bytes the reader may not have used. While a reader is always behind, no write finds how large its
// receive buffer has become. So all counts that it has got since it was last seen to have read everything.
func (r *recentLines) size() int {
	size := r.window
	if r.behind > 0 {
		size = max(size, r.behind+readAhead)
	}
	if r.limit > 0 {
		size = min(size, r.limit)
	}
	return min(size, maxResent)
}

// tail returns the last bytes that the reader may not have used, preceded by the beginning of their first line. It is a
// part of r.lines.
func (r *recentLines) tail() []byte {
	if cut := len(r.lines) - r.size(); cut > 0 {
		return r.lines[bytes.LastIndexByte(r.lines[:cut], '\n')+1:]
	}
	return r.lines
}

// rewound forgets the lines, which the caller may keep, and the reader: they are sent again, over a new connection.
func (r *recentLines) rewound() {
	r.lines, r.offered, r.behind, r.emptyAt = nil, 0, 0, time.Time{}
}

// unused returns an upper bound of the bytes that the reader of conn has not used: those that it has not read, and
// readAhead. 0 if the reader answers each request.
func unused(conn net.Conn) (bytes int, isTCP bool) {
	if _, answered := conn.(*exportConn); answered {
		return 0, false
	}
	q, ok := queuesOf(conn)
	if !ok {
		return maxResent, false
	}
	return q.unread() + readAhead, q.isTCP
}

// queues are what the kernel knows about the bytes of a connection that are on their way to the reader.
type queues struct {
	isTCP   bool
	waiting int // TCP: bytes that the reader's kernel has not acknowledged
	window  int // TCP: bytes of the receive window that it offers now
	buffer  int // Unix sockets: the size of the send buffer
}

// unread returns an upper bound of the bytes that the reader has not read.
//
// Unix sockets: what is not read counts against the sender's buffer (sock_alloc_send_pskb in
// net/core/sock.c). TCP: what is not acknowledged, and what the peer's kernel holds. That is no more
// than its receive buffer. The window shows the free part of it, so [recentLines] takes the largest one, and
// counts what a reader has got that is always behind.
func (q queues) unread() int {
	if !q.isTCP {
		return q.buffer
	}
	return q.waiting + q.window
}

// queuesOf returns false if they are not known.
func queuesOf(conn net.Conn) (q queues, ok bool) {
	ours := 0 // what waits for this kernel
	if secure, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = secure.NetConn()
	}
	if lower, ok := conn.(*patientConn); ok {
		conn, ours = lower.Conn, lower.pending()
	}
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return q, false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return q, false
	}
	_, q.isTCP = conn.(*net.TCPConn)
	failed := raw.Control(func(fd uintptr) {
		if !q.isTCP {
			q.buffer, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF)
			return
		}
		var info *unix.TCPInfo
		if info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err != nil {
			return
		}
		q.window = int(info.Snd_wnd)
		q.waiting, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
		q.waiting += ours
	})
	return q, err == nil && failed == nil
}

// firstLine is the first line of lines, with its end.
func firstLine(lines []byte) []byte { return lines[:bytes.IndexByte(lines, '\n')+1] }
