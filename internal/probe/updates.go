package probe

import (
	"errors"
	"fmt"
	"io"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// ErrNoUpdates means that [Options.UpdatesFrom] was not set, or that the Probe is closed.
var ErrNoUpdates = errors.New("there is no iterator over them")

// OpenUpdates begins a walk over the connections of the network namespace that the calling thread is in. As the
// caller reads, the program emits an update of each connection that matches the filter. One read ends after some
// 64 sockets; what it reads, if anything, are bytes that are 1 if the rings had little room then. The caller may
// pause between two reads, and must close the walk. OpenUpdates is safe for concurrent use, but not the reads of
// two walks.
func (p *Probe) OpenUpdates() (io.ReadCloser, error) {
	r, err := p.updates.open(ErrNoUpdates)
	if err != nil {
		return nil, fmt.Errorf("walk the live connections: %w", err)
	}
	return r, nil
}

var atTCPSockets = hook{ebpf.AttachTraceIter, "tcp", false}

// tryUpdates tries an iterator over TCP sockets. It must be one that owns the lock of the socket that it
// shows: since 5.15 (commit 04c7820b776f), which has added struct bpf_tcp_iter_state.
func tryUpdates(types *btf.Cache) error {
	spec, err := types.Kernel()
	if err != nil {
		return fmt.Errorf("it could not be tried: %w", err)
	}
	var state *btf.Struct
	if err := spec.TypeByName("bpf_tcp_iter_state", &state); err != nil {
		return errors.New("this kernel's iterator over TCP sockets does not own their locks")
	}
	return tryProgram(types, atTCPSockets, asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()})
}
