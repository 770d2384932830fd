package probe

import (
	"errors"
	"maps"
	"sync"

	"github.com/cilium/ebpf"
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
	spec.Programs = nil
	shared, err := ebpf.NewCollectionWithOptions(spec, opts)
	if err != nil {
		return nil, err
	}
	defer shared.Close() // the other collections have their own references to the maps
	opts.MapReplacements = shared.Maps
	return loadParts(parts, opts)
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
