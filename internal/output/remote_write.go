package output

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// longestWrite is the longest time of a write. With a spool it is spoolWrite, because the lines that wait are
// safer on disk; and slowWrite if the write before took longer, so that they get there fast.
const longestWrite, spoolWrite, slowWrite = time.Second, 100 * time.Millisecond, time.Millisecond

// writeLimit is the longest time of the next write.
func (o *remote) writeLimit() time.Duration {
	switch {
	case o.spool == nil:
		return longestWrite
	case o.slow:
		return slowWrite
	}
	return spoolWrite
}

// write writes to a stream, for up to writeLimit. It returns the number of bytes in whole lines. With TLS
// these are none until the connection below has all bytes.
func (o *remote) write(lines []byte) (whole int, err error) {
	if exported, ok := o.conn.(*exportConn); ok {
		return o.export(exported, lines)
	}
	secure, ok := o.conn.(*tls.Conn)
	if ok {
		if err := secure.NetConn().(*patientConn).flush(o.writeLimit()); err != nil {
			return 0, err
		}
	} else {
		_ = o.conn.SetWriteDeadline(time.Now().Add(o.writeLimit()))
	}
	if o.sent < len(lines) {
		n, writeErr := o.conn.Write(lines[o.sent:])
		o.sent, err = o.sent+n, writeErr
	}
	if ok && err == nil && secure.NetConn().(*patientConn).pending() > 0 {
		return 0, os.ErrDeadlineExceeded
	}
	whole = wholeLines(lines[:min(o.sent, len(lines))])
	o.sent -= whole
	return whole, err
}

// writeDatagrams writes each line as one datagram.
func (o *remote) writeDatagrams(lines []byte) (written int, err error) {
	for written < len(lines) {
		line := firstLine(lines[written:])
		_ = o.conn.SetWriteDeadline(time.Now().Add(o.writeLimit()))
		if err := o.writeDatagram(line); err != nil {
			return written, err
		}
		written += len(line)
	}
	return written, nil
}

func (o *remote) writeDatagram(line []byte) (err error) {
	if o.Encode != nil {
		if o.encoded, err = o.Encode(o.encoded[:0], line); err != nil {
			o.Notify("a line is left out: " + err.Error())
			return nil
		}
		line = o.encoded
	}
	_, err = o.conn.Write(line)
	conn, ok := o.conn.(*net.UnixConn)
	switch {
	case !ok || !errors.Is(err, unix.EMSGSIZE) && !errors.Is(err, unix.ENOBUFS):
	case o.Encode != nil:
		err = writeMemfd(conn, line)
	default: // net.core.wmem_default is small
		_ = conn.SetWriteBuffer(2 * len(line))
		_, err = conn.Write(line)
	}
	return err
}

// writeMemfd sends a datagram without content, and with the descriptor of a file that has it. The file is in memory
// and sealed, so that the reader can rely on its content.
func writeMemfd(conn *net.UnixConn, content []byte) error {
	fd, err := unix.MemfdCreate("tcpshift-entry", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return os.NewSyscallError("memfd_create", err)
	}
	file := os.NewFile(uintptr(fd), "memfd")
	defer file.Close()
	if _, err := file.Write(content); err != nil {
		return err
	}
	const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(file.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	err = raw.Write(func(socket uintptr) (done bool) { // UnixConn has no such write for a connected socket
		sendErr = unix.Sendmsg(int(socket), nil, unix.UnixRights(fd), nil, unix.MSG_NOSIGNAL)
		return !errors.Is(sendErr, unix.EAGAIN)
	})
	return errors.Join(err, sendErr)
}
