package probe

import (
	"maps"

	"github.com/cilium/ebpf"

	"github.com/tcpshift/tcpshift/internal/bpfobj"
)

// load loads the collection. It loads the backup program for transitions in parallel with
// all others, because verifying the two large programs takes most of the start. The maps
// are created first, because both parts share them.
func load(spec *ebpf.CollectionSpec, opts ebpf.CollectionOptions) (*ebpf.Collection, error) {
	const backup = bpfobj.ProbeProgSetStateBackup
	rest, alone := spec.Copy(), spec.Copy()
	delete(rest.Programs, backup)
	maps.DeleteFunc(alone.Programs, func(name string, _ *ebpf.ProgramSpec) bool { return name != backup })
	spec.Programs = nil
	shared, err := ebpf.NewCollectionWithOptions(spec, opts)
	if err != nil {
		return nil, err
	}
	defer shared.Close() // the other two collections have their own references to the maps
	opts.MapReplacements = shared.Maps

	var other *ebpf.Collection
	var otherErr error
	done := make(chan struct{})
	go func() {
		defer close(done)
		other, otherErr = ebpf.NewCollectionWithOptions(alone, opts)
	}()
	collection, err := ebpf.NewCollectionWithOptions(rest, opts)
	<-done
	if err == nil {
		err = otherErr
	}
	if err != nil {
		if collection != nil {
			collection.Close()
		}
		if other != nil {
			other.Close()
		}
		return nil, err
	}
	collection.Programs[backup] = other.DetachProgram(backup)
	other.Close()
	return collection, nil
}
