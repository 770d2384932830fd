package tcplab

import (
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

const loopback = 1 // index of the device in a new namespace

// AddLoopbackAddr adds an IPv6 address to the loopback device, which has one only; for IPv4
// it has all of 127.0.0.0/8.
func (n *Netns) AddLoopbackAddr(addr netip.Addr) {
	n.t.Helper()
	request := struct {
		addr   [16]byte
		prefix uint32
		device int32
	}{addr.As16(), 128, loopback}
	var fd int
	var err error
	n.Do(func() { fd, err = unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0) })
	n.must("socket", err)
	defer unix.Close(fd)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFADDR, uintptr(unsafe.Pointer(&request)))
	if errno != 0 {
		n.must(fmt.Sprintf("ioctl SIOCSIFADDR %v", addr), errno)
	}
	at := &unix.SockaddrInet6{Addr: addr.As16()}
	if addr.IsLinkLocalUnicast() {
		at.ZoneId = loopback
	}
	n.await(fmt.Sprintf("use of %v", addr), func() bool { return unix.Bind(fd, at) == nil })
}
