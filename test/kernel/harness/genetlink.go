package harness

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// include/uapi/linux/mptcp.h and mptcp_pm.h
const (
	mptcpCmdAddAddr    = 1
	mptcpCmdFlushAddrs = 4
	mptcpAttrAddr      = 1
	mptcpAddrFamily    = 1
	mptcpAddrID        = 2
	mptcpAddrAddr4     = 3
	mptcpAddrPort      = 5
	mptcpAddrFlags     = 6
	mptcpFlagSignal    = 1
)

// attribute encodes one netlink attribute, with padding.
func attribute(kind uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
	return append(b, make([]byte, (4-len(b)%4)%4)...)
}

// generic sends one command of generic netlink and returns the attributes of the
// answer.
func (th *thread) generic(family uint16, command uint8, attributes []byte) ([]byte, error) {
	env := th.actor.env
	env.T.Helper()
	fd := th.Must(unix.SYS_SOCKET, unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_GENERIC)
	defer th.CloseRaw(fd)
	const headers = 16 + 4
	header := unix.NlMsghdr{
		Len: uint32(headers + len(attributes)), Type: family, Flags: unix.NLM_F_REQUEST | unix.NLM_F_ACK,
	}
	request := append(append([]byte{}, bytesOf(&header)...), command, 1, 0, 0)
	request = append(request, attributes...)
	o := th.Order(unix.SYS_SENDTO)
	if _, err := o.do(uintptr(fd), o.Put(request), uintptr(len(request)), 0, 0, 0); err != nil {
		return nil, err
	}
	o = th.Order(unix.SYS_RECVFROM)
	buf := o.Put(make([]byte, 1024))
	n, err := o.do(uintptr(fd), buf, 1024, 0, 0, 0)
	env.must(th.actor, unix.SYS_RECVFROM, err)
	answer := o.got(buf, n)
	if binary.NativeEndian.Uint16(answer[4:]) == unix.NLMSG_ERROR {
		if code := int32(binary.NativeEndian.Uint32(answer[16:])); code != 0 {
			return nil, unix.Errno(-code)
		}
		return nil, nil
	}
	return answer[headers:], nil
}

// mptcpFamily returns the number of the generic netlink family mptcp_pm.
func (th *thread) mptcpFamily() uint16 {
	th.actor.env.T.Helper()
	answer, err := th.generic(unix.GENL_ID_CTRL, unix.CTRL_CMD_GETFAMILY,
		attribute(unix.CTRL_ATTR_FAMILY_NAME, []byte("mptcp_pm\x00")))
	if err != nil {
		th.actor.env.T.Fatalf("find generic netlink family mptcp_pm: %v", err)
	}
	for len(answer) >= 4 {
		size, kind := int(binary.NativeEndian.Uint16(answer)), binary.NativeEndian.Uint16(answer[2:])
		if kind == unix.CTRL_ATTR_FAMILY_ID {
			return binary.NativeEndian.Uint16(answer[4:])
		}
		answer = answer[min(len(answer), (size+3)&^3):]
	}
	th.actor.env.T.Fatal("generic netlink family mptcp_pm has no number")
	return 0
}

// AddEndpoint makes the kernel listen on an address and announce it to MPTCP peers.
func (th *thread) AddEndpoint(to netip.AddrPort) {
	env := th.actor.env
	env.T.Helper()
	family := th.mptcpFamily()
	four := to.Addr().As4()
	addr := attribute(mptcpAddrFamily, binary.NativeEndian.AppendUint16(nil, unix.AF_INET))
	addr = append(addr, attribute(mptcpAddrID, []byte{7})...)
	addr = append(addr, attribute(mptcpAddrAddr4, four[:])...)
	addr = append(addr, attribute(mptcpAddrPort, binary.NativeEndian.AppendUint16(nil, to.Port()))...)
	addr = append(addr, attribute(mptcpAddrFlags, binary.NativeEndian.AppendUint32(nil, mptcpFlagSignal))...)
	const nested = 1 << 15
	from := Now()
	if _, err := th.generic(family, mptcpCmdAddAddr, attribute(mptcpAttrAddr|nested, addr)); err != nil {
		env.T.Fatalf("add an MPTCP endpoint: %v", err)
	}
	env.noteStep(th.actor, from, Now())
}

// FlushEndpoints removes all MPTCP endpoints of the namespace.
func (th *thread) FlushEndpoints() {
	env := th.actor.env
	env.T.Helper()
	family := th.mptcpFamily()
	from := Now()
	if _, err := th.generic(family, mptcpCmdFlushAddrs, nil); err != nil {
		env.T.Fatalf("flush MPTCP endpoints: %v", err)
	}
	env.noteStep(th.actor, from, Now())
}
