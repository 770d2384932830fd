package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// ErrNoBoundPorts means that this kernel does not show which ports connect() skips, that
// [Options.BoundPorts] was not set, or that the Probe is closed.
var ErrNoBoundPorts = errors.New("list bound ports: needs the iterator over TCP sockets (Linux 5.9)")

// boundPorts is the iterator of [Probe.BoundPorts].
type boundPorts struct {
	mu sync.Mutex
	it *link.Iter // nil: there is none
}

func (b *boundPorts) attach(program *ebpf.Program) error {
	if program == nil {
		return nil
	}
	it, err := link.AttachIter(link.IterOptions{Program: program})
	if err != nil {
		return fmt.Errorf("attach the iterator over bound ports: %w", err)
	}
	b.it = it
	return nil
}

func (b *boundPorts) close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.it == nil {
		return nil
	}
	err := b.it.Close()
	b.it = nil
	return err
}

// open begins an iteration. It does not depend on a later close.
func (b *boundPorts) open() (io.ReadCloser, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.it == nil {
		return nil, ErrNoBoundPorts
	}
	return b.it.Open()
}

// BoundPorts returns the local ports that connect() does not choose, whatever the destination,
// because bind() has made or joined their bind buckets (bpf/bound_ports.h): of listeners and
// connections in the network namespace that the calling thread is in. It leaves out sockets that
// are bound and neither listen nor are connected. It walks the kernel's tables of listeners and
// connections. It is safe for concurrent use, and fails with [ErrNoBoundPorts] after Close.
func (p *Probe) BoundPorts() (*tcp.PortSet, error) {
	r, err := p.boundPorts.open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	raw, err := io.ReadAll(steadyReader{r})
	if err != nil {
		return nil, fmt.Errorf("list bound ports: %w", err)
	}
	ports := &tcp.PortSet{}
	for ; len(raw) >= 2; raw = raw[2:] {
		ports.Add(binary.NativeEndian.Uint16(raw))
	}
	return ports, nil
}
