package tcp

import (
	"iter"
	"math/bits"
)

const (
	portPageBits  = 1024
	portPageWords = portPageBits / 64
)

// PortSet is a set of ports: a bitmap in pages of 1,024 ports, which are allocated when they
// are needed. It takes half a KiB if it is nearly empty, and at most 9 KiB. A nil PortSet
// is empty.
type PortSet struct {
	pages [65536 / portPageBits]*[portPageWords]uint64
}

// PortSetOf returns the set of these ports.
func PortSetOf(ports ...uint16) *PortSet {
	s := &PortSet{}
	for _, port := range ports {
		s.Add(port)
	}
	return s
}

// Add adds a port.
func (s *PortSet) Add(port uint16) {
	page := &s.pages[port/portPageBits]
	if *page == nil {
		*page = new([portPageWords]uint64)
	}
	at := port % portPageBits
	(*page)[at/64] |= 1 << (at % 64)
}

// Has reports whether the set has a port.
func (s *PortSet) Has(port uint16) bool {
	if s == nil {
		return false
	}
	page, at := s.pages[port/portPageBits], port%portPageBits
	return page != nil && page[at/64]>>(at%64)&1 == 1
}

// Len is the number of ports in the set.
func (s *PortSet) Len() int { return s.unionLen(nil, 0, 65535) }

// Within yields the ports of the set from low to high, in order.
func (s *PortSet) Within(low, high uint16) iter.Seq[uint16] {
	return func(yield func(uint16) bool) {
		if s == nil {
			return
		}
		for port := int(low); port <= int(high); port++ {
			if s.pages[port/portPageBits] == nil {
				port |= portPageBits - 1 // the last of its page
			} else if s.Has(uint16(port)) && !yield(uint16(port)) {
				return
			}
		}
	}
}

// Bytes is the memory that the set takes.
func (s *PortSet) Bytes() int {
	if s == nil {
		return 0
	}
	size := 8 * len(s.pages)
	for _, page := range s.pages {
		if page != nil {
			size += portPageBits / 8
		}
	}
	return size
}

// unionLen is how many ports from low to high are in s or in o.
func (s *PortSet) unionLen(o *PortSet, low, high uint16) (count int) {
	for n := low / portPageBits; n <= high/portPageBits; n++ {
		for i := range portPageWords {
			word := (s.word(n, i) | o.word(n, i)) & wordMask(int(n)*portPageBits+64*i, int(low), int(high))
			count += bits.OnesCount64(word)
		}
	}
	return count
}

func (s *PortSet) word(page uint16, i int) uint64 {
	if s == nil || s.pages[page] == nil {
		return 0
	}
	return s.pages[page][i]
}

// wordMask has the bits of the ports from low to high in the word that begins with a port.
func wordMask(first, low, high int) uint64 {
	mask := ^uint64(0)
	if below := low - first; below > 0 {
		mask <<= min(below, 64)
	}
	if above := first + 63 - high; above > 0 {
		mask &= ^uint64(0) >> min(above, 64)
	}
	return mask
}
