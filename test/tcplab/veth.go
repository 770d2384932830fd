package tcplab

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// vethPeer is VETH_INFO_PEER of include/uapi/linux/veth.h.
const vethPeer = 1

// Veth joins two namespaces by a veth pair, with an IPv4 address at each end, both in
// one /24. Like loopback it loses no packet, but the peer is another host.
func Veth(a, b *Netns, atA, atB netip.Addr) {
	a.t.Helper()
	var home int
	var err error
	b.Do(func() { home, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	b.must("open /proc/thread-self/ns/net", err)
	defer unix.Close(home)
	a.Do(func() { err = addVeth(home) })
	a.must("add veth", err)
	a.Do(func() { err = giveAddress(vethName, atA) })
	a.must("give veth an address", err)
	b.Do(func() { err = giveAddress(vethName, atB) })
	b.must("give veth an address", err)
}

// AddVethAddr adds an IPv4 address to the veth device of this namespace.
func (n *Netns) AddVethAddr(addr netip.Addr) {
	n.t.Helper()
	var err error
	n.Do(func() { err = giveAddress(fmt.Sprintf("%s:%d", vethName, addr.As4()[3]), addr) })
	n.must("give veth an address", err)
}

const vethName = "veth-test"

// attribute appends a netlink attribute.
func attribute(dst []byte, kind uint16, value []byte) []byte {
	dst = binary.NativeEndian.AppendUint16(dst, uint16(unix.SizeofRtAttr+len(value)))
	dst = append(binary.NativeEndian.AppendUint16(dst, kind), value...)
	for len(dst)%4 != 0 {
		dst = append(dst, 0)
	}
	return dst
}

func addVeth(peerNetns int) error {
	link := make([]byte, unix.SizeofIfInfomsg)
	name := append([]byte(vethName), 0)
	peer := attribute(link, unix.IFLA_IFNAME, name)
	peer = attribute(peer, unix.IFLA_NET_NS_FD, binary.NativeEndian.AppendUint32(nil, uint32(peerNetns)))
	info := attribute(nil, unix.IFLA_INFO_KIND, []byte("veth"))
	info = attribute(info, unix.IFLA_INFO_DATA, attribute(nil, vethPeer, peer))
	message := attribute(append([]byte(nil), link...), unix.IFLA_IFNAME, name)
	message = attribute(message, unix.IFLA_LINKINFO, info)
	return routeRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, message)
}

// routeRequest sends one request of rtnetlink and waits for the answer.
func routeRequest(kind uint16, flags uint16, message []byte) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fd)
	header := unix.NlMsghdr{Type: kind, Flags: unix.NLM_F_REQUEST | unix.NLM_F_ACK | flags, Seq: 1}
	header.Len = uint32(unix.SizeofNlMsghdr + len(message))
	raw := append(unsafe.Slice((*byte)(unsafe.Pointer(&header)), unix.SizeofNlMsghdr), message...)
	if err := unix.Sendto(fd, raw, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("sendto: %w", err)
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return fmt.Errorf("recvfrom: %w", err)
	}
	if n < unix.SizeofNlMsghdr+4 {
		return fmt.Errorf("an answer of %d bytes", n)
	}
	if errno := -int32(binary.NativeEndian.Uint32(answer[unix.SizeofNlMsghdr:])); errno != 0 {
		return unix.Errno(errno)
	}
	return nil
}

func giveAddress(name string, addr netip.Addr) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fd)
	for _, set := range []struct {
		request uint
		value   []byte
	}{{unix.SIOCSIFADDR, addr.AsSlice()}, {unix.SIOCSIFNETMASK, []byte{255, 255, 255, 0}}} {
		r, err := unix.NewIfreq(name)
		if err == nil {
			err = r.SetInet4Addr(set.value)
		}
		if err == nil {
			err = unix.IoctlIfreq(fd, set.request, r)
		}
		if err != nil {
			return fmt.Errorf("ioctl: %w", err)
		}
	}
	r, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
}
