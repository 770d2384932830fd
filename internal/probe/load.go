package probe

import (
	"maps"

	"github.com/cilium/ebpf"

	"github.com/tcpshift/tcpshift/internal/bpfobj"
)

// load has the kernel verify the two programs for transitions side by side, which is
// most of the time of the start. The maps come first, since both have them.
func load(spec *ebpf.CollectionSpec, opts ebpf.CollectionOptions) (*ebpf.Collection, error) {
	const apart = bpfobj.ProbeProgSetStateBackup
	rest, second := spec.Copy(), spec.Copy()
	delete(rest.Programs, apart)
	maps.DeleteFunc(second.Programs, func(name string, _ *ebpf.ProgramSpec) bool { return name != apart })
	spec.Programs = nil
	shared, err := ebpf.NewCollectionWithOptions(spec, opts)
	if err != nil {
		return nil, err
	}
	defer shared.Close() // the other two have the maps as well
	opts.MapReplacements = shared.Maps

	var other *ebpf.Collection
	var otherErr error
	done := make(chan struct{})
	go func() {
		defer close(done)
		other, otherErr = ebpf.NewCollectionWithOptions(second, opts)
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
	collection.Programs[apart] = other.DetachProgram(apart)
	other.Close()
	return collection, nil
}
