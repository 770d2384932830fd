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

// Other filters, or another sample, need other programs: they are constants of the programs, which cannot change after
// they are loaded. Prepare and Replace exchange programs that run; bpf/entry.h has the design.

// programArrays are the maps of bpf/entry.h, each with the entries that read it and the chain whose programs it contains.
var programArrays = []struct {
	array   string
	entries chain
	chain   chain
}{
	{bpfobj.ProbeMapSetStatePrograms, transitionEntries, transitionChain},
	{bpfobj.ProbeMapResetSentPrograms, resetSentEntries, resetSentChain},
}

// replacedPrograms are those that depend on the filters or on the sample.
var replacedPrograms = slices.Concat(transitionChain[:], resetSentChain[:], []string{
	bpfobj.ProbeProgUpdateSockets, bpfobj.ProbeProgCountSockets,
})

// ownMaps are the maps that objects do not share: the constants, and the values of the filters.
var ownMaps = []string{
	".rodata", bpfobj.ProbeMapFilterPortSets, bpfobj.ProbeMapFilterPrefixes, bpfobj.ProbeMapFilterMembers,
}

// attached returns the program that the kernel calls for the named one: its entry if there is one, else the program
// itself; nil if it is not loaded.
func (p *Probe) attached(name string) *ebpf.Program {
	for _, a := range programArrays {
		if rank := slices.Index(a.chain[:], name); rank >= 0 && p.collection.Programs[a.entries[rank]] != nil {
			return p.collection.Programs[a.entries[rank]]
		}
	}
	return p.collection.Programs[name]
}

// setEntered makes the entries call these programs from now on. It does nothing without entries.
func (p *Probe) setEntered(programs map[string]*ebpf.Program) error {
	for _, a := range programArrays {
		for rank, name := range a.chain {
			if p.collection.Programs[a.entries[rank]] == nil {
				continue
			}
			if err := p.collection.Maps[a.array].Put(uint32(rank), programs[name]); err != nil {
				return fmt.Errorf("make an entry call %s: %w", name, err)
			}
		}
	}
	return nil
}

// Programs are loaded programs that are not in use: those of another filter or sample, or those that [Probe.Replace] has replaced.
type Programs struct {
	filter          filter.Filter
	sample          uint64
	collection      *ebpf.Collection
	updates, groups sharedIterator
}

// Close frees the programs.
func (n *Programs) Close() error {
	err := errors.Join(n.updates.close(), n.groups.close())
	n.collection.Close()
	return err
}

// Prepare loads programs for another filter or [Options.Sample], which takes about as long as Open. The programs in use stay until
// [Probe.Replace]. Any goroutine may call Prepare, but not while another one calls Prepare, Replace or FindOwners. It
// fails without [Options.Reloadable], and returns a [*HostError] if this process may not load programs any more. The
// caller must Close the programs.
func (p *Probe) Prepare(f filter.Filter, sample uint64) (*Programs, error) {
	if !p.opts.Reloadable {
		return nil, errors.New("load programs for another filter: the programs in use cannot be replaced")
	}
	opts, features, types := p.opts, p.features, btf.NewCache()
	opts.Filter, opts.Sample = f, sample
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
	next := &Programs{filter: f, sample: sample, collection: c}
	if err := errors.Join(
		fillFilterMaps(c.Maps, &f),
		next.updates.attach(c.Programs[bpfobj.ProbeProgUpdateSockets]),
		next.groups.attach(c.Programs[bpfobj.ProbeProgCountSockets]),
	); err != nil {
		return nil, errors.Join(err, next.Close())
	}
	return next, nil
}

// Replace exchanges the programs in use with next. When it returns, the old programs emit no more events, and those that
// they have emitted are in the rings. Meanwhile each event is handled once, by the old or by the new ones. After an error
// the old programs are in use. The caller must Close next in both cases.
func (p *Probe) Replace(next *Programs) error {
	if err := p.setEntered(next.collection.Programs); err != nil {
		return errors.Join(err, p.setEntered(p.collection.Programs))
	}
	waitForReaders()
	p.updates.swap(&next.updates)
	p.groups.iterator.swap(&next.groups)
	for name, program := range next.collection.Programs {
		p.collection.Programs[name], next.collection.Programs[name] = program, p.collection.Programs[name]
	}
	for _, name := range ownMaps[1:] { // not .rodata: the programs that are not replaced have the constants of the start
		p.collection.Maps[name], next.collection.Maps[name] = next.collection.Maps[name], p.collection.Maps[name]
	}
	p.opts.Filter, p.opts.Sample = next.filter, next.sample
	return nil
}

// FindOwners finds the owners of the open sockets that have none, as Open does. After Replace these are the sockets that
// were out of scope: without FindOwners such a socket has no owner until a transition proves one. Any goroutine may call
// it, but not while another one calls Prepare or Replace.
func (p *Probe) FindOwners() error { return scan(p.collection) }
