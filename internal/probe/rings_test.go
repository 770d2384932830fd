package probe

import (
	"errors"
	"testing"

	"github.com/tcpshift/tcpshift/internal/bpfobj"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// The buffer is divided evenly among groups of CPUs, into rings that are not too small.
func TestRings_Layout(t *testing.T) {
	for _, tt := range []struct{ size, online, possible, count, bytes, pathBytes int }{
		{64 << 10, 128, 128, 1, 64 << 10, 64 << 10},
		{1 << 20, 2, 2, 1, 1 << 20, 256 << 10},
		{2 << 20, 2, 2, 2, 1 << 20, 512 << 10},
		{16 << 20, 1, 1, 1, 16 << 20, 4 << 20},
		{16 << 20, 2, 2, 2, 8 << 20, 4 << 20},
		{16 << 20, 3, 3, 2, 8 << 20, 4 << 20},
		{16 << 20, 128, 128, 8, 2 << 20, 4 << 20},
		{4 << 20, 128, 128, 4, 1 << 20, 1 << 20},
		{1 << 30, 12, 12, 8, 128 << 20, 4 << 20},
		{16 << 20, 24, 24, 8, 2 << 20, 4 << 20},
		{16 << 20, 4, 128, 4, 4 << 20, 4 << 20}, // a virtual machine that may grow
		{16 << 20, 1, 64, 1, 16 << 20, 4 << 20},
		{16 << 20, 8192, 8192, 8, 2 << 20, 4 << 20},
	} {
		l := divide(tt.size, tt.online)
		if l.count != tt.count || l.bytes != tt.bytes || l.pathBytes != tt.pathBytes {
			t.Errorf("%d bytes for %d CPUs are %+v, want %+v", tt.size, tt.online, l, tt)
		}
		cpus := make([]int, l.count)
		for cpu := range tt.possible {
			slot := int(uint64(cpu)*l.perCPU>>32) & (l.count - 1) // bpf/ring.h
			if cpu < tt.online {
				cpus[slot]++
			}
		}
		for index, count := range cpus {
			if count != tt.online/l.count && count != (tt.online+l.count-1)/l.count {
				t.Errorf("%d bytes for %d CPUs: ring %d has %d of them", tt.size, tt.online, index, count)
			}
		}
	}
}

// Rings can be closed while they are still being inserted: close waits for that.
func TestRings_CloseWaitsForInsertion(t *testing.T) {
	tcplab.RequireRoot(t)
	spec, err := bpfobj.LoadProbe()
	if err != nil {
		t.Fatal(err)
	}
	ringLayout{count: maxRings, bytes: 64 << 10, pathBytes: minPathBytes}.apply(spec)
	r, err := makeRings(spec)
	if err := errors.Join(err, r.close()); err != nil {
		t.Error(err)
	}
	if r.pending != 0 || len(r.inserted) != 0 {
		t.Errorf("%d insertions are pending and %d results were not read", r.pending, len(r.inserted))
	}
}
