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
	opConnect  = 1 << 20 << iota // port, connections, pipe: connects, closes first
	opAccept                     // listener, connections, pipe: accepts, closes last
	opDump                       // netlink socket: asks for all of TCP, with TCP_INFO, for ever
	opPush                       // port, connections: connects, and sends until it is told to stop
	opHangUp                     // listener, connections: accepts, reads a little, closes
	opRing                       // flags: makes an io_uring
	opSubmit                     // offsets of a request and an address in the payload
	opComplete                   // waits for a request's result
)

const (
	// stormWindow bounds how far connecting goes ahead of accepting, in batches.
	stormBatch  = 64
	stormWindow = 4 * stormBatch
	stormHosts  = 64 // 127.0.1.1 and up share the ephemeral ports
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
	case opRing:
		return setUpRing(m.args[0])
	case opSubmit:
		return 0, submit((*uringSQE)(unsafe.Pointer(&m.payload[m.args[0]])), m.payload[m.args[1]:])
	case opComplete:
		return complete()
	}
	return 0, uintptr(unix.ENOSYS)
}

// connectMany takes a byte from the pipe for each connection past the window.
func connectMany(port uintptr, count int, credits uintptr) (uintptr, errno) {
	to := unix.RawSockaddrInet4{Family: unix.AF_INET, Port: uint16(port)<<8 | uint16(port)>>8}
	var bytes [stormWindow]byte
	left := stormWindow
	for i := range count {
		if left == 0 {
			n, _, e := syscall.RawSyscall(unix.SYS_READ, credits, uintptr(unsafe.Pointer(&bytes)), stormWindow)
			if e != 0 || n == 0 {
				return 0, uintptr(unix.EPIPE)
			}
			left = int(n)
		}
		left--
		to.Addr = [4]byte{127, 0, 1, byte(1 + i%stormHosts)}
		fd, _, e := syscall.RawSyscall(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM, 0)
		if e == 0 {
			_, _, e = syscall.RawSyscall(unix.SYS_CONNECT, fd, uintptr(unsafe.Pointer(&to)), unsafe.Sizeof(to))
		}
		if e != 0 {
			return 0, uintptr(e)
		}
		_, _, _ = syscall.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
	}
	return uintptr(count), 0
}

// acceptMany reads each connection to its end before it closes it.
func acceptMany(listener uintptr, count int, credits uintptr) (uintptr, errno) {
	var bytes [stormBatch]byte
	for i := range count {
		fd, _, e := syscall.RawSyscall6(unix.SYS_ACCEPT4, listener, 0, 0, 0, 0, 0)
		if e == 0 {
			_, _, e = syscall.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&bytes)), 1)
		}
		if e != 0 {
			return 0, uintptr(e)
		}
		_, _, _ = syscall.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
		if i%stormBatch == stormBatch-1 {
			_, _, _ = syscall.RawSyscall(unix.SYS_WRITE, credits, uintptr(unsafe.Pointer(&bytes)), stormBatch)
		}
	}
	return uintptr(count), 0
}

// dumpForEver is ss -ti in a loop: for each socket the kernel takes its lock.
func dumpForEver(netlink uintptr) (uintptr, errno) {
	request := diagRequest(sockDiagByFamily, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, &diagSocket{
		Family: unix.AF_INET, Protocol: unix.IPPROTO_TCP, Ext: 1 << (inetDiagInfo - 1), States: ^uint32(0),
	})
	var answer [64 << 10]byte
	for {
		_, _, e := syscall.RawSyscall6(unix.SYS_SENDTO, netlink, uintptr(unsafe.Pointer(&request[0])),
			uintptr(len(request)), 0, 0, 0)
		for e == 0 && !endsDump(answer[:]) {
			_, _, e = syscall.RawSyscall6(unix.SYS_RECVFROM, netlink, uintptr(unsafe.Pointer(&answer)),
				unsafe.Sizeof(answer), 0, 0, 0)
		}
		if e != 0 {
			return 0, uintptr(e)
		}
		answer[4] = 0
	}
}

func endsDump(answer []byte) bool {
	header := (*unix.NlMsghdr)(unsafe.Pointer(&answer[0]))
	return header.Type == unix.NLMSG_DONE || header.Type == unix.NLMSG_ERROR
}

var pushed [256 << 10]byte

// pushMany keeps each socket's lock nearly all the time.
func pushMany(port uintptr, count int) (uintptr, errno) {
	to := unix.RawSockaddrInet4{Family: unix.AF_INET, Port: uint16(port)<<8 | uint16(port)>>8}
	for i := range count {
		to.Addr = [4]byte{127, 0, 1, byte(1 + i%stormHosts)}
		fd, _, e := syscall.RawSyscall(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM, 0)
		if e == 0 {
			_, _, e = syscall.RawSyscall(unix.SYS_CONNECT, fd, uintptr(unsafe.Pointer(&to)), unsafe.Sizeof(to))
		}
		if e != 0 {
			return 0, uintptr(e)
		}
		for e == 0 {
			_, _, e = syscall.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&pushed)), unsafe.Sizeof(pushed),
				unix.MSG_NOSIGNAL, 0, 0)
		}
		_, _, _ = syscall.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
	}
	return uintptr(count), 0
}

var hungUp [256 << 10]byte

func hangUpMany(listener uintptr, count int) (uintptr, errno) {
	for i := range count {
		fd, _, e := syscall.RawSyscall6(unix.SYS_ACCEPT4, listener, 0, 0, 0, 0, 0)
		for range 4 + i%7 {
			if e == 0 {
				_, _, e = syscall.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&hungUp)), unsafe.Sizeof(hungUp))
			}
		}
		if e != 0 {
			return 0, uintptr(e)
		}
		if i%2 == 0 { // a FIN first, and a reset when more data comes
			_, _, _ = syscall.RawSyscall(unix.SYS_SHUTDOWN, fd, unix.SHUT_WR, 0)
		}
		_, _, _ = syscall.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
	}
	return uintptr(count), 0
}
