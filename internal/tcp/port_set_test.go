package tcp

import (
	"math/rand/v2"
	"testing"
	"time"
)

// A set of ports has what was added to it, and Limits counts what is left of the range.
func TestPortSet_AgainstMaps(t *testing.T) {
	random := rand.New(rand.NewPCG(11, 12))
	for range 200 {
		low := uint16(random.IntN(65536))
		high := low + uint16(random.IntN(65536-int(low)))
		l := Limits{PortLow: low, PortHigh: high, Reserved: &PortSet{}, Bound: &PortSet{}}
		excluded, bound := map[uint16]bool{}, map[uint16]bool{}
		for range random.IntN(500) {
			reserved, b := low+uint16(random.IntN(int(high-low)+1)), uint16(random.IntN(65536))
			l.Reserved.Add(reserved)
			l.Bound.Add(b)
			excluded[reserved], bound[b] = true, true
			if b >= low && b <= high {
				excluded[b] = true
			}
		}
		if got, want := l.PortCount(), int(high)-int(low)+1-len(excluded); got != want {
			t.Fatalf("%d to %d: %d ports, want %d", low, high, got, want)
		}
		if l.Bound.Len() != len(bound) {
			t.Fatalf("%d ports, want %d", l.Bound.Len(), len(bound))
		}
		for range 100 {
			port := uint16(random.IntN(65536))
			if l.Bound.Has(port) != bound[port] || l.IsEphemeral(port) != (port >= low && port <= high && !excluded[port]) {
				t.Fatalf("port %d: bound %v, ephemeral %v", port, l.Bound.Has(port), l.IsEphemeral(port))
			}
		}
	}
	if (*PortSet)(nil).Len() != 0 || (*PortSet)(nil).Has(1) || (*PortSet)(nil).Bytes() != 0 {
		t.Error("a nil set is not empty")
	}
}

// The limits of 600 namespaces, and what detection derives from them, take at most 22 MiB, whatever is reserved and bound
// in each.
func TestLimits_MemoryOfManyNamespaces(t *testing.T) {
	total := 0
	for range 600 {
		l := Limits{FinTimeout: time.Minute, PortHigh: 65535, BindBuckets: &PortSet{}}
		for port := range 65536 {
			l.BindBuckets.Add(uint16(port))
		}
		others := l.BucketsWithout(func(uint16) bool { return false }) // the largest: nothing is reserved
		l.Reserved, l.Bound = &PortSet{}, &PortSet{}
		for port := range 65536 {
			l.Reserved.Add(uint16(port))
			l.Bound.Add(uint16(port))
		}
		total += l.Reserved.Bytes() + l.Bound.Bytes() + l.BindBuckets.Bytes() + others.Bytes()
	}
	if total > 22<<20 || total < 600*4*8192 {
		t.Errorf("%d bytes", total)
	}
}
