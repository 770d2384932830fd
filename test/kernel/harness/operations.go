package harness

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Orders that are more than one system call: what has to go fast, or on its own
// while others act. Their numbers are above all system calls. They return as one
// does. A bare fork may not run them, as they are ordinary Go.
const (
	OpConnect      = 1 << 20 << iota // port, connections, pipe: connects, closes first
	OpAccept                         // listener, connections, pipe: accepts, closes last
	OpDump                           // netlink socket: asks for all of TCP, with TCP_INFO, for ever
	OpPush                           // port, connections: connects, and sends until it is told to stop
	OpHangUp                         // listener, connections: accepts, reads a little, closes
	OpOpen                           // port, connections: connects only
	OpPushOpen                       // connections: as opPush, with what is open
	OpCloseAll                       // connections: closes what is open
	opRing                           // flags: makes an io_uring
	opSubmit                         // offsets of a request and an address in the payload
	opComplete                       // waits for a request's result
	OpReadLinks                      // a path in the payload, its length: reads that link for ever
	OpTakeError                      // socket: polls for its error until there is one
	OpFill                           // socket: writes until it takes no more
	OpPushShutdown                   // port, connections: connects, sends, shuts both sides down, closes
)

// errno is what a raw system call gives for an error.
type errno = uintptr

func runOperation(m *message) (uintptr, errno) {
	switch m.call {
	case OpConnect:
		return connectMany(m.args[0], int(m.args[1]), m.args[2])
	case OpAccept:
		return acceptMany(m.args[0], int(m.args[1]), m.args[2])
	case OpDump:
		return dumpForever(m.args[0])
	case OpPush:
		return pushMany(m.args[0], int(m.args[1]))
	case OpHangUp:
		return hangUpMany(m.args[0], int(m.args[1]))
	case OpOpen:
		return openMany(m.args[0], int(m.args[1]))
	case OpPushOpen:
		return eachOpen(int(m.args[0]), push)
	case OpCloseAll:
		return eachOpen(int(m.args[0]), func(fd uintptr) { _ = syscall.Close(int(fd)) })
	case opRing:
		return setUpRing(m.args[0])
	case opSubmit:
		return 0, submit((*uringSQE)(unsafe.Pointer(&m.payload[m.args[0]])), m.payload[m.args[1]:])
	case opComplete:
		return complete()
	case OpReadLinks:
		return readLinkForever(m.payload[:m.args[0]])
	case OpTakeError:
		return takeError(m.args[0])
	case OpFill:
		return fill(m.args[0])
	case OpPushShutdown:
		return pushAndShutDownMany(m.args[0], int(m.args[1]))
	}
	return 0, uintptr(unix.ENOSYS)
}
