// Optimization, kept for BenchmarkFastPath/identity: 61 ns instead of 137 ns per transition
// on an AMD EPYC. Without it BenchmarkTrace of internal/trace takes 1.3 times as long.

package record

import "github.com/tcpshift/tcpshift/internal/tcp"

// identityCache keeps the encoded members that identify a socket, as all records of one
// socket mostly have the same. Its size is fixed: a socket replaces the one that had its
// place before.
type identityCache [512]struct {
	key     identityKey
	length  uint8 // of members; 0: the place is empty
	members [240]byte
}

// identityKey is everything that [object.identity] reads.
type identityKey struct {
	cookie       uint64
	local, peer  tcp.Endpoint
	netns        uint32
	role         tcp.Role
	mapped, ipv6 bool
}

func (k *identityKey) matches(t *tcp.Transition) bool {
	return k.cookie == t.Cookie && k.local == t.Local && k.peer == t.Peer && k.netns == t.Netns &&
		k.role == t.Role && k.mapped == t.Mapped && k.ipv6 == t.IPv6
}

// append does what [object.identity] does.
func (c *identityCache) append(o object, t *tcp.Transition) object {
	// Each CPU takes 4096 cookies at a time (COOKIE_LOCAL_BATCH in include/linux/cookie.h).
	kept := &c[(t.Cookie^t.Cookie>>12)%uint64(len(c))]
	if kept.length > 0 && kept.key.matches(t) {
		o.line = append(o.line, kept.members[:kept.length]...)
		return o
	}
	before := len(o.line)
	o = o.identity(t)
	members := o.line[before:]
	if len(members) > len(kept.members) {
		return o // an address with a long zone
	}
	kept.key = identityKey{t.Cookie, t.Local, t.Peer, t.Netns, t.Role, t.Mapped, t.IPv6}
	kept.length = uint8(copy(kept.members[:], members))
	return o
}
