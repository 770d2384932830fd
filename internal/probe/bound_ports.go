package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/tcpshift/tcpshift/internal/bpfobj"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// ErrNoBoundPorts means that this kernel does not show which ports connect() skips, or that
// [Options.BoundPorts] was not set.
var ErrNoBoundPorts = errors.New("list bound ports: needs the iterator over TCP sockets (Linux 5.9)")

// BoundPorts returns the local ports that connect() does not choose, whatever the destination,
// because bind() has made or joined their bind buckets (bpf/bound_ports.h): of listeners and
// connections in the network namespace that the calling thread is in. It leaves out sockets that
// are bound and neither listen nor are connected. It walks the kernel's tables of listeners and
// connections. It may be called from any goroutine, until Close.
func (p *Probe) BoundPorts() (*tcp.PortSet, error) {
	program := p.collection.Programs[bpfobj.ProbeProgDumpBoundPorts]
	if program == nil {
		return nil, ErrNoBoundPorts
	}
	ports := &tcp.PortSet{}
	err := runIterator(program, func(r io.Reader) error {
		b, err := io.ReadAll(r)
		for ; len(b) >= 2; b = b[2:] {
			ports.Add(binary.NativeEndian.Uint16(b))
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list bound ports: %w", err)
	}
	return ports, nil
}
