package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// ErrNoBoundPorts means that this kernel does not show which ports connect() skips, that
// [Options.BoundPorts] was not set, or that the Probe is closed.
var ErrNoBoundPorts = errors.New("list bound ports: needs the iterator over TCP sockets (Linux 5.9)")

// BoundPorts returns the local ports that connect() does not choose, whatever the destination,
// because bind() has made or joined their bind buckets (bpf/bound_ports.h): of listeners and
// connections in the network namespace that the calling thread is in. It leaves out sockets that
// are bound and neither listen nor are connected. It walks the kernel's tables of listeners and
// connections. It is safe for concurrent use, and fails with [ErrNoBoundPorts] after Close.
func (p *Probe) BoundPorts() (*tcp.PortSet, error) {
	r, err := p.boundPorts.open(ErrNoBoundPorts)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	raw, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("list bound ports: %w", err)
	}
	ports := &tcp.PortSet{}
	for ; len(raw) >= 2; raw = raw[2:] {
		ports.Add(binary.NativeEndian.Uint16(raw))
	}
	return ports, nil
}
