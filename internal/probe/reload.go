package probe

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/tcpshift/tcpshift/internal/bpfobj"
	"github.com/tcpshift/tcpshift/internal/filter"
)

// Other filters need other programs, because which filters there are is compiled into the programs when they are
// loaded. Prepare and Replace exchange them while they run; bpf/entry.h has the design.

// programArrays are the maps of bpf/entry.h, with the chains whose programs they contain.
var programArrays = []struct {
	array   string
	entries chain
	chain   chain
}{
	{bpfobj.ProbeMapSetStatePrograms, transitionEntries, transitionChain},
	{bpfobj.ProbeMapResetSentPrograms, resetSentEntries, resetSentChain},
}

// replacedPrograms are those that depend on the filters.
var replacedPrograms = slices.Concat(transitionChain[:], resetSentChain[:], []string{
	bpfobj.ProbeProgUpdateSockets, bpfobj.ProbeProgCountSockets,
})

// ownMaps are the maps that each object has of its own: the constants, and the values of the filters. All objects share
// the others.
var ownMaps = []string{
	".rodata", bpfobj.ProbeMapFilterPortSets, bpfobj.ProbeMapFilterPrefixes, bpfobj.ProbeMapFilterMembers,
}

// attached returns the program that is attached for the named one: its entry, if there is one, or itself. It is nil if
// the program is not loaded.
func (p *Probe) attached(name string) *ebpf.Program {
	for _, a := range programArrays {
		if rank := slices.Index(a.chain[:], name); rank >= 0 && p.collection.Programs[a.entries[rank]] != nil {
			return p.collection.Programs[a.entries[rank]]
		}
	}
	return p.collection.Programs[name]
}

// fillChains makes the entries call these programs from now on. It does nothing without entries.
func (p *Probe) fillChains(programs map[string]*ebpf.Program) error {
	for _, a := range programArrays {
		for rank, name := range a.chain {
			if p.collection.Programs[a.entries[rank]] == nil {
				continue
			}
			if err := p.collection.Maps[a.array].Put(uint32(rank), programs[name]); err != nil {
				return fmt.Errorf("set the program of an entry to %s: %w", name, err)
			}
		}
	}
	return nil
}

// Programs are programs for another filter, which are loaded and not in use.
type Programs struct {
	filter          filter.Filter
	collection      *ebpf.Collection
	updates, groups sharedIterator
}

// Close frees the programs, or, after [Probe.Replace], those that were in use before.
func (n *Programs) Close() error {
	err := errors.Join(n.updates.close(), n.groups.close())
	n.collection.Close()
	return err
}

// Prepare loads programs for another filter, which takes about as long as Open. Nothing changes until
// [Probe.Replace]. Any goroutine may call Prepare, but no other method of reload at the same time. It needs
// [Options.Reloadable], and returns a [*HostError] if this process may not load programs any more. The caller must
// Close the programs.
func (p *Probe) Prepare(f filter.Filter) (*Programs, error) {
	if !p.opts.Reloadable {
		return nil, errors.New("load programs for another filter: the programs in use cannot be replaced")
	}
	opts, features, types := p.opts, p.features, btf.NewCache()
	opts.Filter = f
	kernel := &Kernel{types, func() Features { return features }, sync.OnceValues(bpfobj.LoadProbe)}
	spec, err := configure(opts, features, tracePrograms, kernel)
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(spec.Programs, func(name string, _ *ebpf.ProgramSpec) bool { return !slices.Contains(replacedPrograms, name) })
	shared := maps.Clone(p.collection.Maps)
	maps.DeleteFunc(shared, func(name string, _ *ebpf.Map) bool { return slices.Contains(ownMaps, name) })
	c, err := load(spec, ebpf.CollectionOptions{Cache: types, MapReplacements: shared})
	if err != nil {
		return nil, loadError(err)
	}
	next := &Programs{filter: f, collection: c}
	if err := errors.Join(
		fillFilterMaps(c.Maps, &f),
		next.updates.attach(c.Programs[bpfobj.ProbeProgUpdateSockets]),
		next.groups.attach(c.Programs[bpfobj.ProbeProgCountSockets]),
	); err != nil {
		return nil, errors.Join(err, next.Close())
	}
	return next, nil
}

// Replace makes the programs those that handle all events from now on. When it returns, no event is emitted by the
// filter of before any more; what has been emitted by it is in the rings. Each event is handled once. After an error the
// programs of before are in use. The caller must Close next in any case.
func (p *Probe) Replace(next *Programs) error {
	if err := p.fillChains(next.collection.Programs); err != nil {
		return errors.Join(err, p.fillChains(p.collection.Programs))
	}
	waitForReaders()
	p.updates.swap(&next.updates)
	p.groups.iterator.swap(&next.groups)
	for name, program := range next.collection.Programs {
		p.collection.Programs[name], next.collection.Programs[name] = program, p.collection.Programs[name]
	}
	for _, name := range ownMaps[1:] { // the programs that stay have the constants of the start
		p.collection.Maps[name], next.collection.Maps[name] = next.collection.Maps[name], p.collection.Maps[name]
	}
	p.opts.Filter = next.filter
	return nil
}

// FindOwners finds the owners of the sockets that are open and have none, as Open does: of those that were out of scope
// before Replace. Any goroutine may call it. Without it these sockets have an owner once their process is seen to work
// with them.
func (p *Probe) FindOwners() error { return scan(p.collection) }
