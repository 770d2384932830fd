package harness

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Orders that make many system calls, because they must be fast or must continue while
// other actors act. Their numbers are above those of all system calls, and they return
// a result like a system call. The child of a bare fork cannot run them, because they
// are ordinary Go. Each comment lists the arguments, then the effect.
const (
	OpConnect             = 1 << 20 << iota // port, connections, pipe: connects, and closes first
	OpAccept                                // listener, connections, pipe: accepts, and closes last
	OpDump                                  // netlink socket: dumps all TCP sockets with TCP_INFO, forever
	OpConnectSend                           // port, connections: connects, and sends until it gets an error
	OpAcceptClose                           // listener, connections: accepts, reads a little, and closes
	OpOpen                                  // port, connections: connects only
	OpSendOpen                              // connections: as OpConnectSend, on connections that are open
	OpCloseAll                              // connections: closes those that are open
	opRing                                  // flags: makes an io_uring
	opSubmit                                // offset of a request, offset of an address, both in the payload
	opComplete                              // waits for the result of a request
	OpReadLinks                             // length of the path in the payload: reads that link forever
	OpAwaitError                            // socket: reads SO_ERROR until it is not 0
	OpSendUntilFull                         // socket: writes until the socket takes no more
	OpConnectSendShutdown                   // port, connections: connects, sends, shuts down both directions, closes
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
	case OpConnectSend:
		return connectSendMany(m.args[0], int(m.args[1]))
	case OpAcceptClose:
		return acceptCloseMany(m.args[0], int(m.args[1]))
	case OpOpen:
		return openMany(m.args[0], int(m.args[1]))
	case OpSendOpen:
		return eachOpen(int(m.args[0]), sendUntilError)
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
	case OpAwaitError:
		return awaitError(m.args[0])
	case OpSendUntilFull:
		return sendUntilFull(m.args[0])
	case OpConnectSendShutdown:
		return connectSendShutdownMany(m.args[0], int(m.args[1]))
	}
	return 0, uintptr(unix.ENOSYS)
}
