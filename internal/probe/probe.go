// Package probe loads and attaches the BPF programs, and reads their samples and counters.
// It is the only package that makes bpf() calls. It must not interpret samples, format
// anything or know about output.
package probe

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"

	"github.com/tcpshift/tcpshift/internal/bpfobj"
	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/ring"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// DefaultBufferSize is the size in bytes of all ring buffers for events together: room for
// about half a second of 25,000 connections a second.
const DefaultBufferSize = 16 << 20

// Options are the options of [Open].
type Options struct {
	Filter     filter.Filter
	BufferSize int      // bytes, of all ring buffers for events together; a power of two and a multiple of the page size; 0: DefaultBufferSize
	Ends       bool     // emit a summary of the connection when a socket enters CLOSE
	Without    []string // names of features not to use although the kernel has them
	// TimeWaitEnds emits the ends of TIME_WAITs. Its programs run for every timer that
	// expires and every object that the kernel frees.
	TimeWaitEnds bool
	// Sample is the N of a sample of 1/N: only the events of sockets in the sample and of listeners are emitted;
	// 0: of all sockets. Package selection uses the same hash of the cookie. It needs SocketCookie.
	Sample     uint64
	BoundPorts bool // [Probe.BoundPorts] will be called
	// UpdatesFrom is the age from which connections have updates, which [Probe.OpenUpdates] emits; 0: it will not
	// be called.
	UpdatesFrom  time.Duration
	CountSockets bool // [Probe.CountSockets] will be called
	// StateTimes means that the time in the old state is wanted although Filter has a choice of transitions.
	StateTimes  bool
	ExcludeSelf bool // do not emit transitions of sockets that this process owns
	// Reloadable means that [Probe.Prepare] will be called. Each transition then costs one tail call more for each
	// program of the chain.
	Reloadable bool
	// MayBePreempted, if not nil, decides instead of the kernel's version whether a task
	// may be preempted in a program, for tests. A wrong false gives duplicates.
	MayBePreempted *bool
	// Kernel, if not nil, has what was detected before, so that Open need not detect it again.
	Kernel *Kernel
}

// Kernel caches the kernel's types, its features, and the decoded programs. Detecting
// them takes longer than all the rest of [Open], so several probes may share a Kernel.
type Kernel struct {
	types    *btf.Cache
	features func() Features
	programs func() (*ebpf.CollectionSpec, error) // must be copied before a change
}

// NewKernel returns an empty cache. It is filled when it is first used.
func NewKernel() *Kernel {
	types := btf.NewCache()
	return &Kernel{types, sync.OnceValue(func() Features { return detectFeatures(types) }), sync.OnceValues(bpfobj.LoadProbe)}
}

// Features returns the features as [DetectFeatures] does.
func (k *Kernel) Features() Features { return slices.Clone(k.features()) }

// Probe is the attached programs and their ring buffers. It must not be used by several
// goroutines, except for CloseLinks, Wake, BoundPorts, OpenUpdates and CountSockets, and Prepare and FindOwners, which
// another goroutine may call.
type Probe struct {
	opts       Options // without Kernel
	features   Features
	collection *ebpf.Collection
	linksMu    sync.Mutex
	links      []attachment // in the order of attachment; with linksMu
	reader     *ring.Reader
	rings      rings
	portWaits  waitBudget                    // of ListenPort
	boundPorts sharedIterator                // of BoundPorts
	updates    sharedIterator                // of OpenUpdates
	groups     socketGroups                  // of CountSockets
	perCPU     []bpfobj.ProbeProgramCounters // of the newest reading, to be used again

	resetReasons map[tcp.ResetCode]string
}

// attachment is an attached program and its name.
type attachment struct {
	link.Link
	program string
}

// Open loads and attaches the programs. When it returns, every later transition is traced,
// and the owners of the sockets that were open before are known, unless [Probe.Features] lacks
// [SocketScan]. It returns a [*HostError] if this host cannot trace. The caller must Close the Probe.
func Open(opts Options) (*Probe, error) {
	kernel := opts.Kernel
	if kernel == nil {
		kernel = NewKernel()
	}
	if err := checkHost(kernel.types); err != nil {
		return nil, err
	}
	if opts.BufferSize == 0 {
		opts.BufferSize = DefaultBufferSize
	}
	p := &Probe{opts: opts, features: kernel.Features().without(opts.Without)}
	p.opts.Kernel = nil // it takes much memory
	if err := p.open(opts, kernel); err != nil {
		if limited := limitError(err); limited != nil {
			err = limited
		}
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func (p *Probe) open(opts Options, kernel *Kernel) error {
	p.resetReasons = resetReasons(kernel.types)
	spec, err := configure(opts, p.features, tracePrograms, kernel)
	if err != nil {
		return err
	}
	if p.rings, err = makeRings(spec); err != nil {
		return loadError(err)
	}
	if p.collection, err = load(spec, ebpf.CollectionOptions{
		Cache: kernel.types, MapReplacements: map[string]*ebpf.Map{bpfobj.ProbeMapRings: p.rings.outer},
	}); err != nil {
		return loadError(err)
	}
	if err := fillFilterMaps(p.collection.Maps, &opts.Filter); err != nil {
		return err
	}
	if err := p.rings.await(); err != nil {
		return err
	}
	if p.reader, err = openRings(p.rings.inner, p.collection); err != nil {
		return err
	}
	if err := p.setEntered(p.collection.Programs); err != nil {
		return err
	}
	if err := p.attach(); err != nil {
		return err
	}
	p.findOwners()
	// Without it detection does not know older bound ports; that is no reason not to trace.
	_ = p.boundPorts.attach(p.collection.Programs[bpfobj.ProbeProgDumpBoundPorts])
	if err := p.updates.attach(p.collection.Programs[bpfobj.ProbeProgUpdateSockets]); err != nil {
		return fmt.Errorf("attach the iterator over live connections: %w", err)
	}
	_ = p.groups.attach(p.collection) // without it metrics lack the counts
	return nil
}

// findOwners finds the owners of the sockets that are open. A failure costs that feature, not
// the trace.
func (p *Probe) findOwners() {
	if err := scan(p.collection); err != nil {
		p.features.lose(SocketScan, err)
	}
}

// attach attaches the programs of a tracepoint in the order of their chain, as bpf/dedup.h
// requires: the kernel calls them in the order of their attachment.
func (p *Probe) attach() error {
	for _, name := range slices.Concat(followPrograms, tracePrograms, timeWaitEndPrograms) {
		program := p.attached(name)
		if program == nil || slices.Contains(unattachedPrograms, name) {
			continue
		}
		l, err := attachTracing(program)
		if err != nil {
			return fmt.Errorf("attach program %s: %w", name, err)
		}
		p.linksMu.Lock()
		p.links = append(p.links, attachment{l, name})
		p.linksMu.Unlock()
	}
	return nil
}

func attachTracing(program *ebpf.Program) (link.Link, error) {
	return link.AttachTracing(link.TracingOptions{Program: program})
}

// Features returns the features of this kernel. Those of Options.Without are in it as if the
// kernel did not have them: their Err is set.
func (p *Probe) Features() Features {
	return p.features
}

// VerifiedInstructions returns the number of instructions that the verifier has processed for
// each program, by the program's name. Before Linux 5.16 the map is empty.
func (p *Probe) VerifiedInstructions() (map[string]uint32, error) {
	walked := make(map[string]uint32)
	for name, program := range p.collection.Programs {
		info, err := program.Info()
		if err != nil {
			return nil, fmt.Errorf("read information on program %s: %w", name, err)
		}
		if n, ok := info.VerifiedInstructions(); ok {
			walked[name] = n
		}
	}
	return walked, nil
}

// ReadFor calls handle for each sample until wait is over and the rings are empty: see
// ring.Reader.ReadFor.
func (p *Probe) ReadFor(wait time.Duration, handle func(sample []byte) error) error {
	return p.reader.ReadFor(wait, handle)
}

// Sleep waits until there is a sample, Wake is called, the wall clock is set, or limit is over: see
// ring.Reader.Sleep.
func (p *Probe) Sleep(limit time.Duration) (woken bool, err error) { return p.reader.Sleep(limit) }

// Wake ends the Sleep that is in progress, or else the next one. Any goroutine may call it at any time.
func (p *Probe) Wake() { p.reader.Wake() }

// Crowded reports whether a ring is at least half full, so that it should be read soon.
func (p *Probe) Crowded() bool { return p.reader.Crowded() }

// Detach detaches the programs and returns when none is running. After that the counters
// and the content of the rings do not change. It detaches the backups before the primaries,
// because a primary counts as fired what a backup emits.
func (p *Probe) Detach() error {
	var errs []error
	for rank := len(transitionChain) - 1; rank >= 0; rank-- {
		closed, err := p.closeLinks(func(l attachment) bool { return rankOf(l.program) == rank })
		if errs = append(errs, err); closed > 0 {
			errs = append(errs, p.settle(rank))
		}
	}
	if p.reader != nil {
		p.reader.Finish()
	}
	return errors.Join(errs...)
}

// CloseLinks detaches the programs and nothing else. Any goroutine may call it, even if another
// method does not return: a thread that hangs in a system call keeps the descriptors of the
// process open after its end, so the kernel would not detach the programs.
func (p *Probe) CloseLinks() error {
	_, err := p.closeLinks(func(attachment) bool { return true })
	return err
}

// closeLinks closes the links for which selected is true, in reverse order of attachment, and counts them.
func (p *Probe) closeLinks(selected func(l attachment) bool) (closed int, err error) {
	var errs []error
	for {
		l, ok := p.takeLast(selected)
		if !ok {
			return closed, errors.Join(errs...)
		}
		closed++
		errs = append(errs, l.Close())
	}
}

// takeLast removes from the list the last link for which selected is true. ok is false if there is none.
func (p *Probe) takeLast(selected func(l attachment) bool) (last attachment, ok bool) {
	p.linksMu.Lock()
	defer p.linksMu.Unlock()
	for i, l := range slices.Backward(p.links) {
		if selected(l) {
			p.links = slices.Delete(p.links, i, i+1)
			return l, true
		}
	}
	return last, false
}

// Close detaches the programs, unless Detach has done so, and frees all resources. It may
// be called twice.
func (p *Probe) Close() error {
	var errs []error
	p.linksMu.Lock()
	attached := len(p.links) > 0
	p.linksMu.Unlock()
	if attached {
		errs = append(errs, p.Detach())
	}
	if p.reader != nil {
		errs = append(errs, p.reader.Close())
	}
	errs = append(errs, p.boundPorts.close(), p.updates.close(), p.groups.close(), p.rings.close())
	if p.collection != nil {
		p.collection.Close()
	}
	return errors.Join(errs...)
}
