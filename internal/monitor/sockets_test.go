package monitor

import (
	"slices"
	"testing"

	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/netns"
)

// The sockets of all namespaces that the filter passes are counted, whichever one is found first. The search ends
// early only if it has found all that the filter names.
func TestSocketCounter_NamespacesOfTheFilter(t *testing.T) {
	for _, tt := range []struct {
		name           string
		netns, exclude []uint32
		want           []uint32
		looked         int // at so many namespaces
	}{
		{"no filter", nil, nil, []uint32{1, 2, 3}, 3},
		{"the first excluded", nil, []uint32{1}, []uint32{2, 3}, 3},
		{"the last excluded", nil, []uint32{3}, []uint32{1, 2}, 3},
		{"one named", []uint32{2}, nil, []uint32{2}, 2},
		{"one named that is nowhere", []uint32{1, 9}, nil, []uint32{1}, 3},
		{"named and excluded", []uint32{1, 2}, []uint32{1}, []uint32{2}, 3},
	} {
		f := &filter.Filter{Netns: tt.netns}
		f.Not.Netns = tt.exclude
		looked := 0
		all := func(yield func(netns.Namespace) bool) {
			for _, inode := range []uint32{1, 2, 3} {
				looked++
				if !yield(netns.Namespace{Inode: inode}) {
					return
				}
			}
		}
		var got []uint32
		for _, n := range passing(all, f) {
			got = append(got, n.Inode)
		}
		if !slices.Equal(got, tt.want) || looked != tt.looked {
			t.Errorf("%s: %v of %d namespaces, want %v of %d", tt.name, got, looked, tt.want, tt.looked)
		}
	}
}
