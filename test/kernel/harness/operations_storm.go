package harness

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The operations that make storms.

const (
	// stormWindow bounds, in connections, how far the client is ahead of the server.
	stormBatch  = 64
	stormWindow = 4 * stormBatch
	stormHosts  = 64 // addresses from 127.0.1.1 on, so that the client has enough ephemeral ports
)

// connectMany connects and closes first. It reads one byte from the pipe of credits for
// each connection beyond the window.
func connectMany(port uintptr, count int, credits uintptr) (uintptr, errno) {
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
		fd, e := connectOne(port, i)
		if e != 0 {
			return 0, e
		}
		_, _, _ = syscall.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
	}
	return uintptr(count), 0
}

// acceptMany reads each connection to its end before it closes the connection.
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

// dumpForever is ss -ti in a loop: the kernel takes the lock of each socket.
func dumpForever(netlink uintptr) (uintptr, errno) {
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

var payload [256 << 10]byte

// connectSendMany connects, and sends until it gets an error, so that it has the lock of
// a socket nearly all the time.
func connectSendMany(port uintptr, count int) (uintptr, errno) {
	for i := range count {
		fd, e := connectOne(port, i)
		if e != 0 {
			return 0, e
		}
		sendUntilError(fd)
	}
	return uintptr(count), 0
}

func connectOne(port uintptr, i int) (uintptr, errno) {
	to := unix.RawSockaddrInet4{Family: unix.AF_INET, Port: uint16(port)<<8 | uint16(port)>>8}
	to.Addr = [4]byte{127, 0, 1, byte(1 + i%stormHosts)}
	fd, _, e := syscall.RawSyscall(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM, 0)
	if e == 0 {
		_, _, e = syscall.RawSyscall(unix.SYS_CONNECT, fd, uintptr(unsafe.Pointer(&to)), unsafe.Sizeof(to))
	}
	return fd, uintptr(e)
}

func sendUntilError(fd uintptr) {
	for e := syscall.Errno(0); e == 0; {
		_, _, e = syscall.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&payload)), unsafe.Sizeof(payload),
			unix.MSG_NOSIGNAL, 0, 0)
	}
	_, _, _ = syscall.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
}

func openMany(port uintptr, count int) (uintptr, errno) {
	for i := range count {
		if _, e := connectOne(port, i); e != 0 {
			return 0, e
		}
	}
	return uintptr(count), 0
}

// eachOpen calls f for the connections of the process, in the order of their
// descriptors.
func eachOpen(count int, f func(fd uintptr)) (uintptr, errno) {
	found := 0
	for fd := 3; fd < controlFrom && found < count; fd++ {
		if p, err := syscall.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); err == nil && p == unix.IPPROTO_TCP {
			found++
			f(uintptr(fd))
		}
	}
	return uintptr(found), 0
}

var received [256 << 10]byte

func acceptCloseMany(listener uintptr, count int) (uintptr, errno) {
	for i := range count {
		fd, _, e := syscall.RawSyscall6(unix.SYS_ACCEPT4, listener, 0, 0, 0, 0, 0)
		for range 4 + i%7 {
			if e == 0 {
				_, _, e = syscall.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&received)), unsafe.Sizeof(received))
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
