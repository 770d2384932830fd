package detect

import (
	"encoding/binary"
	"net/netip"
)

// recent remembers what keys led to lately: in a storm it is a few over and over, and to
// look one up in a map takes longer than most of detection. A key takes the place of
// another, so what is in a place is to be compared; and what is no longer kept elsewhere
// is to be forgotten here.
type recent[T any] [256]*T

// at gives the place of a key that has this spread; it may be empty.
func (r *recent[T]) at(spread uint32) **T {
	return &r[spread%uint32(len(r))]
}

func (r *recent[T]) forget() { clear(r[:]) }

// spread is a number that is another for most ends.
func spread(a netip.Addr, port uint16) uint32 {
	if a.Is4() {
		b := a.As4()
		return mix(uint64(binary.BigEndian.Uint32(b[:])) + uint64(port))
	}
	b := a.As16()
	return mix(binary.BigEndian.Uint64(b[8:]) + uint64(port))
}

func mix(v uint64) uint32 { return uint32(v * 0x9e37_79b9_7f4a_7c15 >> 32) }
