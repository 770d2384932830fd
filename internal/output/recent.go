package output

import (
	"bytes"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// maxResent bounds the lines that a new connection gets again, in bytes.
	maxResent = 8 << 20
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
	window int // the largest result of unused so far, in bytes, at most maxResent
}

// add takes whole lines that conn has got.
func (r *recentLines) add(lines []byte, conn net.Conn) {
	if len(lines) == 0 {
		return
	}
	r.window = max(r.window, min(unused(conn), maxResent))
	if len(r.lines) > 2*r.window {
		r.lines = append(r.lines[:0], r.tail()...)
	}
	r.lines = append(r.lines, lines...)
}

// tail returns the last window bytes, preceded by the beginning of their first line. It is a part of r.lines.
func (r *recentLines) tail() []byte {
	if cut := len(r.lines) - r.window; cut > 0 {
		return r.lines[bytes.LastIndexByte(r.lines[:cut], '\n')+1:]
	}
	return r.lines
}

// unused returns an upper bound of the bytes that the reader of conn has not used: those that it has not read, and
// readAhead. 0 if the reader answers each request.
func unused(conn net.Conn) int {
	if _, answered := conn.(*exportConn); answered {
		return 0
	}
	return unread(conn) + readAhead
}

// unread returns an upper bound of the bytes that the reader of conn has not read; maxResent if it is not known.
//
// Unix sockets: what is not read counts against the sender's buffer (sock_alloc_send_pskb in
// net/core/sock.c). TCP: what is not acknowledged, and what the peer's kernel holds. That is no more
// than its receive buffer, which the largest window that it has offered shows. The buffer grows while
// the reader reads, at most to twice what it has read in a round trip (tcp_rcv_space_adjust), so twice
// the window is taken.
func unread(conn net.Conn) (bytes int) {
	ours := 0 // what waits for this kernel
	if secure, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = secure.NetConn()
	}
	if lower, ok := conn.(*patientConn); ok {
		conn, ours = lower.Conn, lower.pending()
	}
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return maxResent
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return maxResent
	}
	bytes = maxResent
	_ = raw.Control(func(fd uintptr) {
		if _, isTCP := conn.(*net.TCPConn); !isTCP {
			if size, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF); err == nil {
				bytes = size
			}
			return
		}
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		waiting, waitingErr := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
		if err == nil && waitingErr == nil && info.Snd_wnd > 0 {
			bytes = ours + waiting + 2*int(info.Snd_wnd)
		}
	})
	return bytes
}

// firstLine is the first line of lines, with its end.
func firstLine(lines []byte) []byte { return lines[:bytes.IndexByte(lines, '\n')+1] }
