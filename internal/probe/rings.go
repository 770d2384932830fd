package probe

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/tcpshift/tcpshift/internal/bpfobj"
	"github.com/tcpshift/tcpshift/internal/ring"
)

const (
	// mostRings keeps each large enough for a burst that one group of CPUs makes.
	mostRings     = 8
	leastRing     = 1 << 20
	leastForPaths = 64 << 10 // the largest page that Linux has, which is the least a ring can have
	mostForPaths  = 4 << 20  // of 2,000 cgroups
)

// layout is how the buffer is shared out among groups of CPUs.
type layout struct {
	count  int
	each   int    // bytes
	paths  int    // bytes besides, for the paths of cgroups
	perCPU uint64 // count/CPUs that there are now, rounded up, in parts of 2^32
}

func layoutOf(size int) (layout, error) {
	possible, err := ebpf.PossibleCPU()
	if err != nil {
		return layout{}, fmt.Errorf("count CPUs: %w", err)
	}
	return share(size, onlineCPUs(possible)), nil
}

// share is among the CPUs that are there: a virtual machine may have four, and room
// for a hundred more. Those that come later use the rings of the others.
func share(size, online int) layout {
	l := layout{count: 1}
	for 2*l.count <= min(online, mostRings) && size/(2*l.count) >= leastRing {
		l.count *= 2
	}
	l.each = size / l.count
	l.paths = min(max(size/4, leastForPaths), mostForPaths)
	l.perCPU = (uint64(l.count)<<32 + uint64(online) - 1) / uint64(online)
	return l
}

// onlineCPUs is one more than the highest number of a CPU that is online; all that are
// possible where that is not to be found out.
func onlineCPUs(possible int) int {
	list, err := os.ReadFile("/sys/devices/system/cpu/online") // such as 0-3,8-11
	if err != nil {
		return possible
	}
	last := strings.TrimSpace(string(list))
	highest, err := strconv.Atoi(last[strings.LastIndexAny(last, ",-")+1:])
	if err != nil || highest >= possible {
		return possible
	}
	return highest + 1
}

func (l layout) apply(spec *ebpf.CollectionSpec) {
	rings := spec.Maps[bpfobj.ProbeMapRings]
	rings.MaxEntries, rings.InnerMap.MaxEntries = uint32(l.count), uint32(l.each)
	spec.Maps[bpfobj.ProbeMapPaths].MaxEntries = uint32(l.paths)
}

// makeRings makes those that the programs find by their CPU.
func makeRings(spec *ebpf.CollectionSpec, c *ebpf.Collection) (rings []*ebpf.Map, err error) {
	outer := spec.Maps[bpfobj.ProbeMapRings]
	for index := range outer.MaxEntries {
		m, err := ebpf.NewMap(outer.InnerMap)
		if err != nil {
			return rings, fmt.Errorf("make ring buffer of %d bytes: %w", outer.InnerMap.MaxEntries, err)
		}
		rings = append(rings, m)
		if err := c.Maps[bpfobj.ProbeMapRings].Put(index, m); err != nil {
			return rings, fmt.Errorf("hand ring buffer to the programs: %w", err)
		}
	}
	return rings, nil
}

func openRings(rings []*ebpf.Map, c *ebpf.Collection) (*ring.Reader, error) {
	var parts []ring.Buffer
	for _, m := range rings {
		parts = append(parts, buffer(m))
	}
	paths := buffer(c.Maps[bpfobj.ProbeMapPaths])
	return ring.New(parts, &paths)
}

func buffer(m *ebpf.Map) ring.Buffer {
	return ring.Buffer{FD: m.FD(), Size: int(m.MaxEntries())}
}
