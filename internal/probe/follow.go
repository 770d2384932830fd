package probe

import (
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/tcpshift/tcpshift/internal/bpfobj"
)

// maxFollowed bounds the processes that filter.Filter.Children follows at one time, and those that
// have ended and whose sockets still pass. Both maps together take about 5 MiB.
const maxFollowed = 32 << 10

// followPrograms find the children of this process, see bpf/follow.h.
var followPrograms = []string{bpfobj.ProbeProgProcessForked, bpfobj.ProbeProgProcessExited}

// sizeFollowed gives the maps of bpf/follow.h their room, and returns the programs.
func sizeFollowed(spec *ebpf.CollectionSpec) []string {
	spec.Maps[bpfobj.ProbeMapFollowed].MaxEntries = maxFollowed
	spec.Maps[bpfobj.ProbeMapFollowedBefore].MaxEntries = maxFollowed
	return followPrograms
}

// Unfollowed is how many processes filter.Filter.Children has not followed: there were more than
// 32,768 at one time, or the program that follows them missed their start.
func (p *Probe) Unfollowed() (count uint64, err error) {
	forked := p.collection.Programs[bpfobj.ProbeProgProcessForked]
	if forked == nil {
		return 0, nil
	}
	if err := p.collection.Maps[bpfobj.ProbeMapUnfollowed].Lookup(uint32(0), &count); err != nil {
		return 0, fmt.Errorf("read the count of processes: %w", err)
	}
	stats, err := forked.Stats()
	if err != nil {
		return 0, fmt.Errorf("read program statistics: %w", err)
	}
	return count + stats.RecursionMisses, nil
}
