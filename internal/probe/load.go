package probe

import (
	"errors"
	"maps"
	"sync"

	"github.com/cilium/ebpf"

	"github.com/tcpshift/tcpshift/internal/bpfobj"
)

// load loads the collection. It loads each backup program for transitions in parallel with
// all others, because verifying these large programs takes most of the start. The maps are
// created first, because all parts share them.
func load(spec *ebpf.CollectionSpec, opts ebpf.CollectionOptions) (*ebpf.Collection, error) {
	parts := []*ebpf.CollectionSpec{spec.Copy()}
	for _, backup := range transitionChain[1:] {
		if spec.Programs[backup] == nil {
			continue
		}
		alone := spec.Copy()
		maps.DeleteFunc(alone.Programs, func(name string, _ *ebpf.ProgramSpec) bool { return name != backup })
		delete(parts[0].Programs, backup)
		parts = append(parts, alone)
	}
	counting := parts[0].Copy()
	maps.DeleteFunc(counting.Programs, func(name string, _ *ebpf.ProgramSpec) bool { return name != bpfobj.ProbeProgCountSockets })
	delete(parts[0].Programs, bpfobj.ProbeProgCountSockets)
	spec.Programs = nil
	shared, err := ebpf.NewCollectionWithOptions(spec, opts)
	if err != nil {
		return nil, err
	}
	defer shared.Close() // the other collections have their own references to the maps
	opts.MapReplacements = shared.Maps
	c, err := loadParts(parts, opts)
	if err == nil {
		addOptional(c, counting, opts)
	}
	return c, err
}

// addOptional adds the programs of a part to a collection, if the kernel takes them.
func addOptional(c *ebpf.Collection, part *ebpf.CollectionSpec, opts ebpf.CollectionOptions) {
	if len(part.Programs) == 0 {
		return
	}
	more, err := ebpf.NewCollectionWithOptions(part, opts)
	if err != nil {
		return
	}
	defer more.Close()
	for name := range more.Programs {
		c.Programs[name] = more.DetachProgram(name)
	}
}

// loadParts loads all parts at once, and returns the first with the programs of all.
func loadParts(parts []*ebpf.CollectionSpec, opts ebpf.CollectionOptions) (*ebpf.Collection, error) {
	loaded, errs := make([]*ebpf.Collection, len(parts)), make([]error, len(parts))
	var running sync.WaitGroup
	for i, part := range parts {
		running.Go(func() { loaded[i], errs[i] = ebpf.NewCollectionWithOptions(part, opts) })
	}
	running.Wait()
	if err := errors.Join(errs...); err != nil {
		for _, c := range loaded {
			if c != nil {
				c.Close()
			}
		}
		return nil, err
	}
	for _, c := range loaded[1:] {
		for name := range c.Programs {
			loaded[0].Programs[name] = c.DetachProgram(name)
		}
		c.Close()
	}
	return loaded[0], nil
}
