package harness

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Orders that are more than one system call, because they must be fast or must go on
// while others act. Their numbers are above all system calls, and they return results
// like one. The child of a bare fork cannot run them, because they are ordinary Go.
// Each comment lists the arguments, then the effect.
const (
	OpConnect      = 1 << 20 << iota // port, connections, pipe: connects, and closes first
	OpAccept                         // listener, connections, pipe: accepts, and closes last
	OpDump                           // netlink socket: dumps all TCP sockets with TCP_INFO, forever
	OpPush                           // port, connections: connects, and sends until it gets an error
	OpHangUp                         // listener, connections: accepts, reads a little, and closes
	OpOpen                           // port, connections: connects only
	OpPushOpen                       // connections: as OpPush, on connections that are open
	OpCloseAll                       // connections: closes those that are open
	opRing                           // flags: makes an io_uring
	opSubmit                         // offset of a request, offset of an address, both in the payload
	opComplete                       // waits for the result of a request
	OpReadLinks                      // length of the path in the payload: reads that link forever
	OpTakeError                      // socket: reads SO_ERROR until it is not 0
	OpFill                           // socket: writes until the socket takes no more
	OpPushShutdown                   // port, connections: connects, sends, shuts down both directions, closes
)

// errno is the error number of a raw system call.
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
