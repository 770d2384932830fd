package probe

import (
	"errors"
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
	spec.Maps[bpfobj.ProbeMapCgroupPaths].MaxEntries = uint32(l.paths)
}

// rings are those that the programs find by their CPU.
type rings struct {
	outer *ebpf.Map
	inner []*ebpf.Map
	given chan error // of handing each inner one to the outer
}

// makeRings does not wait: after each change of a map of maps the kernel waits for
// every program that runs (kernel/bpf/syscall.c, maybe_wait_bpf_programs), which takes
// some ten milliseconds. Meanwhile the programs can be loaded.
func makeRings(spec *ebpf.CollectionSpec) (r rings, err error) {
	outer := spec.Maps[bpfobj.ProbeMapRings]
	if r.outer, err = ebpf.NewMap(outer); err != nil {
		return r, fmt.Errorf("make array of ring buffers: %w", err)
	}
	r.given = make(chan error, outer.MaxEntries)
	for index := range outer.MaxEntries {
		m, err := ebpf.NewMap(outer.InnerMap)
		if err != nil {
			return r, fmt.Errorf("make ring buffer of %d bytes: %w", outer.InnerMap.MaxEntries, err)
		}
		r.inner = append(r.inner, m)
		go func() { r.given <- r.outer.Put(index, m) }()
	}
	return r, nil
}

// await returns when the programs find them.
func (r *rings) await() error {
	for range r.inner {
		if err := <-r.given; err != nil {
			return fmt.Errorf("hand ring buffer to the programs: %w", err)
		}
	}
	return nil
}

func (r *rings) close() error {
	var errs []error
	for _, m := range append(r.inner, r.outer) {
		errs = append(errs, m.Close()) // a nil one has nothing to close
	}
	return errors.Join(errs...)
}

func openRings(inner []*ebpf.Map, c *ebpf.Collection) (*ring.Reader, error) {
	var parts []ring.Buffer
	for _, m := range inner {
		parts = append(parts, buffer(m))
	}
	paths := buffer(c.Maps[bpfobj.ProbeMapCgroupPaths])
	return ring.New(parts, &paths)
}

func buffer(m *ebpf.Map) ring.Buffer {
	return ring.Buffer{FD: m.FD(), Size: int(m.MaxEntries())}
}
