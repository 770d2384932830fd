package record

import "github.com/tcpshift/tcpshift/internal/tcp"

// identities keeps the members that say which socket it is, as they were last written
// for a socket: most of its records have the same. A socket takes the place of another,
// so that there are never more than fit.
type identities [512]struct {
	of      identity
	length  uint8 // of the members; 0: there are none
	members [240]byte
}

// identity is all that the members are made of.
type identity struct {
	cookie       uint64
	local, peer  tcp.Endpoint
	netns        uint32
	role         tcp.Role
	mapped, ipv6 bool
}

func (i *identity) is(t *tcp.Transition) bool {
	return i.cookie == t.Cookie && i.local == t.Local && i.peer == t.Peer && i.netns == t.Netns &&
		i.role == t.Role && i.mapped == t.Mapped && i.ipv6 == t.IPv6
}

func (i *identities) append(dst object, t *tcp.Transition) object {
	// Cookies are handed out in order, to each CPU 4096 at a time.
	kept := &i[(t.Cookie^t.Cookie>>12)%uint64(len(i))]
	if kept.length > 0 && kept.of.is(t) {
		return append(dst, kept.members[:kept.length]...)
	}
	longer := dst.identity(t)
	members := longer[len(dst):]
	if len(members) > len(kept.members) {
		return longer // an address with a long zone
	}
	kept.of = identity{t.Cookie, t.Local, t.Peer, t.Netns, t.Role, t.Mapped, t.IPv6}
	kept.length = uint8(copy(kept.members[:], members))
	return longer
}
