package record

import (
	"crypto/sha1" //nolint:gosec // the algorithm of Community ID version 1; nothing relies on its strength
	"encoding/base64"
	"encoding/binary"
	"net/netip"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// communityID appends the Community ID version 1 of a TCP connection, with seed 0: a hash of
// its endpoints that Zeek, Suricata and others compute alike, at either end of the connection
// (https://github.com/corelight/community-id-spec). It appends nothing unless both addresses
// and both ports are known.
func (o object) communityID(key string, local, peer tcp.Endpoint) object {
	if !local.Addr.IsValid() || !peer.Addr.IsValid() || local.Port == 0 || peer.Port == 0 {
		return o
	}
	digest := flowHash(local, peer)
	o.line = append(o.key(key), `"1:`...)
	o.line = base64.StdEncoding.AppendEncode(o.line, digest[:])
	o.line = append(o.line, '"')
	return o
}

// flowHash hashes, in network byte order: the seed, the addresses, the protocol, a zero byte
// and the ports. The endpoint with the smaller address comes first; with equal addresses, the
// one with the smaller port.
func flowHash(a, b tcp.Endpoint) [sha1.Size]byte {
	const seed = 0
	const protocolTCP = 6
	if order := a.Addr.WithZone("").Compare(b.Addr.WithZone("")); order > 0 || order == 0 && a.Port > b.Port {
		a, b = b, a
	}
	var buf [2 + 16 + 16 + 2 + 2 + 2]byte
	flow := binary.BigEndian.AppendUint16(buf[:0], seed)
	flow = appendAddr(appendAddr(flow, a.Addr), b.Addr)
	flow = append(flow, protocolTCP, 0)
	flow = binary.BigEndian.AppendUint16(flow, a.Port)
	flow = binary.BigEndian.AppendUint16(flow, b.Port)
	return sha1.Sum(flow) //nolint:gosec // see the import
}

// appendAddr appends the 4 or 16 bytes of an address.
func appendAddr(dst []byte, a netip.Addr) []byte {
	if a.Is4() {
		b := a.As4()
		return append(dst, b[:]...)
	}
	b := a.As16()
	return append(dst, b[:]...)
}
