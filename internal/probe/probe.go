// Package probe loads the BPF programs, attaches them, reads what they say and
// counts what they could not say. It is the only package that makes bpf() calls;
// it must not interpret samples, format anything or know about output.
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
)

// DefaultBufferSize holds about half a second of 25,000 connections a second.
const DefaultBufferSize = 16 << 20

// Options decide what the programs do; they cannot be changed after Open.
type Options struct {
	Filter     filter.Filter
	BufferSize int      // bytes, a power of two and of pages; 0: DefaultBufferSize
	Ends       bool     // a socket's last transition says what the connection was
	Without    []string // features not to use although the kernel has them, for tests
	// TimeWaitEnds tells the ends of TIME_WAITs, by programs that run for every timer
	// and every object that the kernel frees.
	TimeWaitEnds bool
	ExcludeSelf  bool // leave out sockets that this process provably operates on
	// Kernel, if not nil, is what has been found out already.
	Kernel *Kernel
}

// Kernel is what this kernel has and gives: its types, decoded, and its features,
// tried; and our programs, decoded. To find that out takes longer than all the rest of Open; whoever opens
// several probes may keep it.
type Kernel struct {
	types    *btf.Cache
	features func() Features
	programs func() (*ebpf.CollectionSpec, error) // to be copied
}

// NewKernel has found out nothing yet: that comes with the first Open.
func NewKernel() *Kernel {
	types := btf.NewCache()
	return &Kernel{types, sync.OnceValue(func() Features { return detectFeatures(types) }), sync.OnceValues(bpfobj.LoadProbe)}
}

// Features are those of [DetectFeatures].
func (k *Kernel) Features() Features { return slices.Clone(k.features()) }

// Probe is the attached programs and their ring buffer. It is for one goroutine.
type Probe struct {
	features   Features
	collection *ebpf.Collection
	links      []attachment // in their order
	reader     *ring.Reader
	rings      rings
}

// attachment is a program that runs.
type attachment struct {
	link.Link
	program string
}

// Open loads the programs and attaches them: when it returns, every later
// transition is seen, and the owners of the sockets that are open already have
// been looked up. It fails with a [*HostError] where this host cannot. The caller
// must Close the probe.
func Open(opts Options) (*Probe, error) {
	kernel := opts.Kernel
	if kernel == nil {
		kernel = NewKernel()
	}
	if err := checkHost(kernel.types); err != nil {
		return nil, err
	}
	p := &Probe{features: kernel.Features().without(opts.Without)}
	if err := p.open(opts, kernel); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func (p *Probe) open(opts Options, kernel *Kernel) error {
	if opts.BufferSize == 0 {
		opts.BufferSize = DefaultBufferSize
	}
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
	if err := p.attach(); err != nil {
		return err
	}
	return scan(p.collection)
}

// attach keeps the order that bpf/twins.h asks for: the kernel calls the programs
// of a tracepoint in the order of their attachment.
func (p *Probe) attach() error {
	for _, name := range slices.Concat(tracePrograms, timeWaitEndPrograms) {
		program := p.collection.Programs[name]
		if program == nil || name == bpfobj.ProbeProgScanFiles || name == bpfobj.ProbeProgAdoptSubflows {
			continue // left out by configure, or an iterator, which is run once and not attached
		}
		l, err := attachTracing(program)
		if err != nil {
			return fmt.Errorf("attach program %s: %w", name, err)
		}
		p.links = append(p.links, attachment{l, name})
	}
	return nil
}

func attachTracing(program *ebpf.Program) (link.Link, error) {
	return link.AttachTracing(link.TracingOptions{Program: program})
}

// Features are what this kernel was found to give.
func (p *Probe) Features() Features {
	return p.features
}

// Instructions are how many the verifier has walked of each program, by the
// program's name; none before Linux 5.16.
func (p *Probe) Instructions() (map[string]uint32, error) {
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

// Read waits for samples, at most as long as wait, and hands over each one there
// is; handle must not keep the slice. It returns when the time is over and the
// ring has been read, or after twice that time under load, or with handle's error.
func (p *Probe) Read(wait time.Duration, handle func(sample []byte) error) error {
	return p.reader.Read(wait, handle)
}

// Crowded says whether half of the ring is taken, so that it should be read soon.
func (p *Probe) Crowded() bool { return p.reader.Crowded() }

// Detach takes the programs off the tracepoint and returns when none runs any
// more: from then on Counters and the ring's content do not change. The second
// goes first, because what it emits is counted as fired by the first.
func (p *Probe) Detach() error {
	var errs []error
	for len(p.links) > 0 {
		last := p.links[len(p.links)-1]
		p.links = p.links[:len(p.links)-1]
		errs = append(errs, last.Close(), p.settle(last.program))
	}
	if p.reader != nil {
		p.reader.Finish()
	}
	return errors.Join(errs...)
}

// Close detaches if Detach has not, and gives everything back. It may be called twice.
func (p *Probe) Close() error {
	var errs []error
	if len(p.links) > 0 {
		errs = append(errs, p.Detach())
	}
	if p.reader != nil {
		errs = append(errs, p.reader.Close())
	}
	errs = append(errs, p.rings.close())
	if p.collection != nil {
		p.collection.Close()
	}
	return errors.Join(errs...)
}
