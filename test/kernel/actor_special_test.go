package kernel_test

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Orders that are more than one system call: what has to go fast, or on its own
// while others act. Their numbers are above all system calls. They return as one
// does. A bare fork may not run them, as they are ordinary Go.
const (
	opConnect      = 1 << 20 << iota // port, connections, pipe: connects, closes first
	opAccept                         // listener, connections, pipe: accepts, closes last
	opDump                           // netlink socket: asks for all of TCP, with TCP_INFO, for ever
	opPush                           // port, connections: connects, and sends until it is told to stop
	opHangUp                         // listener, connections: accepts, reads a little, closes
	opOpen                           // port, connections: connects only
	opPushOpen                       // connections: as opPush, with what is open
	opCloseAll                       // connections: closes what is open
	opRing                           // flags: makes an io_uring
	opSubmit                         // offsets of a request and an address in the payload
	opComplete                       // waits for a request's result
	opReadLinks                      // a path in the payload, its length: reads that link for ever
	opTakeError                      // socket: polls for its error until there is one
	opFill                           // socket: writes until it takes no more
	opPushShutdown                   // port, connections: connects, sends, shuts both sides down, closes
)

// errno is what a raw system call gives for an error.
type errno = uintptr

func special(m *message) (uintptr, errno) {
	switch m.call {
	case opConnect:
		return connectMany(m.args[0], int(m.args[1]), m.args[2])
	case opAccept:
		return acceptMany(m.args[0], int(m.args[1]), m.args[2])
	case opDump:
		return dumpForEver(m.args[0])
	case opPush:
		return pushMany(m.args[0], int(m.args[1]))
	case opHangUp:
		return hangUpMany(m.args[0], int(m.args[1]))
	case opOpen:
		return openMany(m.args[0], int(m.args[1]))
	case opPushOpen:
		return eachOpen(int(m.args[0]), push)
	case opCloseAll:
		return eachOpen(int(m.args[0]), func(fd uintptr) { _ = syscall.Close(int(fd)) })
	case opRing:
		return setUpRing(m.args[0])
	case opSubmit:
		return 0, submit((*uringSQE)(unsafe.Pointer(&m.payload[m.args[0]])), m.payload[m.args[1]:])
	case opComplete:
		return complete()
	case opReadLinks:
		return readLinkForEver(m.payload[:m.args[0]])
	case opTakeError:
		return takeError(m.args[0])
	case opFill:
		return fill(m.args[0])
	case opPushShutdown:
		return pushAndShutDownMany(m.args[0], int(m.args[1]))
	}
	return 0, uintptr(unix.ENOSYS)
}
