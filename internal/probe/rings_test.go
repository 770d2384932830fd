package probe

import "testing"

func TestTheBufferIsSharedOutAmongGroupsOfCPUsButNotTooFinely(t *testing.T) {
	for _, tt := range []struct{ size, cpus, count, each, paths int }{
		{64 << 10, 128, 1, 64 << 10, 64 << 10},
		{1 << 20, 2, 1, 1 << 20, 256 << 10},
		{2 << 20, 2, 2, 1 << 20, 512 << 10},
		{16 << 20, 1, 1, 16 << 20, 4 << 20},
		{16 << 20, 2, 2, 8 << 20, 4 << 20},
		{16 << 20, 3, 2, 8 << 20, 4 << 20},
		{16 << 20, 128, 8, 2 << 20, 4 << 20},
		{4 << 20, 128, 4, 1 << 20, 1 << 20},
		{1 << 30, 12, 8, 128 << 20, 4 << 20},
	} {
		l := share(tt.size, tt.cpus)
		if l.count != tt.count || l.each != tt.each || l.paths != tt.paths {
			t.Errorf("%d bytes for %d CPUs are %+v, want %+v", tt.size, tt.cpus, l, tt)
		}
		used := make(map[uint64]bool)
		for cpu := range uint64(tt.cpus) {
			used[cpu*l.perCPU>>32] = true
		}
		for index := range uint64(l.count) {
			if !used[index] {
				t.Errorf("%d bytes for %d CPUs: ring %d is nobody's", tt.size, tt.cpus, index)
			}
		}
		if len(used) != l.count {
			t.Errorf("%d bytes for %d CPUs: rings %v are used, there are %d", tt.size, tt.cpus, used, l.count)
		}
	}
}
