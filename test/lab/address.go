package lab

import (
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// AddAddr gives the loopback device another IPv6 address: it has but one, while
// of IPv4 it has all of 127.0.0.0/8.
func (n *Netns) AddAddr(addr netip.Addr) {
	n.t.Helper()
	const loopback = 1 // its index in a new namespace
	request := struct {
		addr   [16]byte
		prefix uint32
		device int32
	}{addr.As16(), 128, loopback}
	var err error
	n.Do(func() {
		var fd int
		if fd, err = unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return
		}
		defer unix.Close(fd)
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFADDR, uintptr(unsafe.Pointer(&request))); errno != 0 {
			err = errno
		}
	})
	n.must(fmt.Sprintf("ioctl SIOCSIFADDR %v", addr), err)
}
