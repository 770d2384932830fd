package harness

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// readLinkForever does what lsof, ss -p and fuser do with /proc/PID/fd. For a moment
// the reader has a reference to the file. The process that drops the last reference
// closes the file.
func readLinkForever(path []byte) (uintptr, errno) {
	var to [256]byte
	for {
		_, _, _ = syscall.RawSyscall6(unix.SYS_READLINKAT, 0, uintptr(unsafe.Pointer(&path[0])),
			uintptr(unsafe.Pointer(&to)), unsafe.Sizeof(to), 0, 0)
	}
}

// awaitError reads the pending error of a socket as fast as it can, until there is one.
func awaitError(fd uintptr) (uintptr, errno) {
	var value, size int32
	for value == 0 {
		size = 4
		_, _, e := syscall.RawSyscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_ERROR,
			uintptr(unsafe.Pointer(&value)), uintptr(unsafe.Pointer(&size)), 0)
		if e != 0 {
			return 0, uintptr(e)
		}
	}
	return uintptr(value), 0
}

// sendUntilFull writes until the socket takes no more.
func sendUntilFull(fd uintptr) (uintptr, errno) {
	for {
		_, _, e := syscall.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&payload)), unsafe.Sizeof(payload),
			unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT, 0, 0)
		if e != 0 {
			return 0, 0
		}
	}
}

// connectSendShutdownMany is connectSendMany with both directions shut down before the close.
func connectSendShutdownMany(port uintptr, count int) (uintptr, errno) {
	for i := range count {
		fd, e := connectOne(port, i)
		if e != 0 {
			return 0, e
		}
		for range 2 + i%3 {
			_, _, _ = syscall.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&payload)), unsafe.Sizeof(payload),
				unix.MSG_NOSIGNAL, 0, 0)
		}
		_, _, _ = syscall.RawSyscall(unix.SYS_SHUTDOWN, fd, unix.SHUT_RDWR, 0)
		_, _, _ = syscall.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
	}
	return uintptr(count), 0
}
