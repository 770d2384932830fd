package probe

import (
	"fmt"

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
	perCPU uint64 // count/CPUs, in parts of 2^32
}

func layoutOf(size int) (layout, error) {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return layout{}, fmt.Errorf("count CPUs: %w", err)
	}
	return share(size, cpus), nil
}

func share(size, cpus int) layout {
	l := layout{count: 1}
	for 2*l.count <= min(cpus, mostRings) && size/(2*l.count) >= leastRing {
		l.count *= 2
	}
	l.each = size / l.count
	l.paths = min(max(size/4, leastForPaths), mostForPaths)
	l.perCPU = uint64(l.count) << 32 / uint64(cpus)
	return l
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
