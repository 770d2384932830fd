package output

import "golang.org/x/sys/unix"

// socket is a connected socket that tcpshift has inherited, as standard output for example.
type socket struct{ descriptor }

// ReaderGone reports whether the peer has closed the connection.
func (s *socket) ReaderGone() bool { return s.hungUp() }

// Write writes all lines and waits while the socket takes nothing.
func (s *socket) Write(lines []byte) (int, error) { return writeAll(s, lines) }

// try does not wait, so that it is known how much a reader that stalls has got.
func (s *socket) try(lines []byte) (int, error) {
	return s.tryWith(lines, func(rest []byte) (int, error) {
		return unix.SendmsgN(s.fd, rest, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	})
}
