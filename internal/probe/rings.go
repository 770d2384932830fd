package probe

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/tcpshift/tcpshift/internal/bpfobj"
	"github.com/tcpshift/tcpshift/internal/ring"
	"github.com/tcpshift/tcpshift/internal/safeopen"
)

const (
	// maxRings keeps each ring large enough for a burst of one group of CPUs.
	maxRings     = 8
	minRingBytes = 1 << 20
	minPathBytes = 64 << 10 // the largest page of Linux, because a ring has at least one page
	maxPathBytes = 4 << 20  // the paths of about 1,300 cgroups
)

// ringLayout is how the buffer is divided among groups of CPUs.
type ringLayout struct {
	count     int    // of rings, a power of two
	bytes     int    // of each ring
	pathBytes int    // of the ring for the paths of cgroups, in addition
	perCPU    uint64 // count divided by cpusUpToLastOnline, rounded up; fixed point, 32 fraction bits
}

func ringLayoutOf(size int) (ringLayout, error) {
	possible, err := ebpf.PossibleCPU()
	if err != nil {
		return ringLayout{}, fmt.Errorf("count CPUs: %w", err)
	}
	return divide(size, cpusUpToLastOnline(possible)), nil
}

// divide divides the buffer among the CPUs up to the last one that is online: a virtual machine
// may have four CPUs and room for a hundred more. CPUs that come online later share the rings of others.
func divide(size, online int) ringLayout {
	l := ringLayout{count: 1}
	for 2*l.count <= min(online, maxRings) && size/(2*l.count) >= minRingBytes {
		l.count *= 2
	}
	l.bytes = size / l.count
	l.pathBytes = min(max(size/4, minPathBytes), maxPathBytes)
	l.perCPU = (uint64(l.count)<<32 + uint64(online) - 1) / uint64(online)
	return l
}

// cpusUpToLastOnline returns one more than the highest number of an online CPU, or possible if that
// is not known.
func cpusUpToLastOnline(possible int) int {
	list, err := safeopen.ReadFile("/sys/devices/system/cpu/online") // such as 0-3,8-11
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

func (l ringLayout) apply(spec *ebpf.CollectionSpec) {
	rings := spec.Maps[bpfobj.ProbeMapRings]
	rings.MaxEntries, rings.InnerMap.MaxEntries = uint32(l.count), uint32(l.bytes)
	spec.Maps[bpfobj.ProbeMapCgroupPaths].MaxEntries = uint32(l.pathBytes)
}

// rings is the map rings of bpf/ring.h: the array and the ring buffers in it.
type rings struct {
	outer    *ebpf.Map
	inner    []*ebpf.Map
	inserted chan error // one result for each inner map, when it is in the outer map
	pending  int        // results that have not been received
}

// makeRings creates the rings and inserts them in the background; await waits for that.
// After each change of a map of maps the kernel waits for all running programs
// (kernel/bpf/syscall.c, maybe_wait_bpf_programs), which takes some ten milliseconds.
// Meanwhile the programs can be loaded.
func makeRings(spec *ebpf.CollectionSpec) (r rings, err error) {
	outer := spec.Maps[bpfobj.ProbeMapRings]
	if r.outer, err = ebpf.NewMap(outer); err != nil {
		return r, fmt.Errorf("create array of ring buffers: %w", err)
	}
	r.inserted = make(chan error, outer.MaxEntries)
	for index := range outer.MaxEntries {
		m, err := ebpf.NewMap(outer.InnerMap)
		if err != nil {
			return r, fmt.Errorf("create ring buffer of %d bytes: %w", outer.InnerMap.MaxEntries, err)
		}
		r.inner = append(r.inner, m)
		r.pending++
		go func() { r.inserted <- r.outer.Put(index, m) }()
	}
	return r, nil
}

// await waits until all rings are in the map.
func (r *rings) await() error {
	var errs []error
	for ; r.pending > 0; r.pending-- {
		errs = append(errs, <-r.inserted)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("insert ring buffer into its map: %w", err)
	}
	return nil
}

// close closes the maps, once no goroutine inserts into them any more.
func (r *rings) close() error {
	errs := []error{r.await()}
	for _, m := range append(r.inner, r.outer) {
		errs = append(errs, m.Close()) // Close of a nil map does nothing
	}
	return errors.Join(errs...)
}

func openRings(inner []*ebpf.Map, c *ebpf.Collection) (*ring.Reader, error) {
	var buffers []ring.Buffer
	for _, m := range inner {
		buffers = append(buffers, bufferOf(m))
	}
	paths := bufferOf(c.Maps[bpfobj.ProbeMapCgroupPaths])
	return ring.New(buffers, &paths)
}

func bufferOf(m *ebpf.Map) ring.Buffer {
	return ring.Buffer{FD: m.FD(), Size: int(m.MaxEntries())}
}
