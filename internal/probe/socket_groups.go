package probe

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/cilium/ebpf"

	"github.com/tcpshift/tcpshift/internal/bpfobj"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// ErrNoSocketCounts means that this kernel cannot count sockets by owner, that [Options.CountSockets] was not
// set, or that the Probe is closed.
var ErrNoSocketCounts = errors.New("count sockets: needs the iterator over TCP sockets (Linux 5.9)")

// maxSocketGroups bounds the groups of sockets of one namespace. They take about 1 MiB.
const maxSocketGroups = 8192

func roomForSocketGroups(opts Options) uint32 {
	if opts.CountSockets {
		return maxSocketGroups
	}
	return 1
}

// socketGroups counts the sockets of a namespace in a map.
type socketGroups struct {
	iterator sharedIterator

	mu     sync.Mutex
	counts *ebpf.Map // nil: there is none, or it is closed
}

func (g *socketGroups) attach(c *ebpf.Collection) error {
	program := c.Programs[bpfobj.ProbeProgCountSockets]
	if program == nil {
		return nil
	}
	counts, err := c.Maps[bpfobj.ProbeMapSocketGroups].Clone()
	if err != nil {
		return fmt.Errorf("count sockets: %w", err)
	}
	g.counts = counts
	return g.iterator.attach(program)
}

func (g *socketGroups) close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	err := g.iterator.close()
	if g.counts != nil {
		err = errors.Join(err, g.counts.Close())
		g.counts = nil
	}
	return err
}

// CountSockets returns how many sockets that match the filters the network namespace of the calling thread has,
// by state and owner. Sockets beyond 8192 groups are in groups without an owner. It walks the kernel's tables of
// listeners and connections, and must not be called by several goroutines at a time. It fails with
// [ErrNoSocketCounts] after Close.
func (p *Probe) CountSockets() ([]tcp.OwnerSockets, error) {
	g := &p.groups
	r, err := g.iterator.open(ErrNoSocketCounts)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	others, err := io.ReadAll(r)
	groups, readErr := g.take()
	if err := errors.Join(err, readErr); err != nil {
		return nil, fmt.Errorf("count sockets: %w", err)
	}
	for _, state := range others {
		groups = addOther(groups, tcp.State(state))
	}
	return groups, nil
}

// take reads and deletes all groups.
func (g *socketGroups) take() (groups []tcp.OwnerSockets, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.counts == nil {
		return nil, ErrNoSocketCounts
	}
	var keys []bpfobj.ProbeSocketGroup
	var key bpfobj.ProbeSocketGroup
	var count uint64
	entries := g.counts.Iterate()
	for entries.Next(&key, &count) {
		keys = append(keys, key)
		groups = append(groups, tcp.OwnerSockets{CgroupID: key.CgroupId, Comm: tcp.Comm(key.Comm), State: tcp.State(key.State), Count: count})
	}
	if err := entries.Err(); err != nil {
		return nil, err
	}
	for i := range keys {
		if err := g.counts.Delete(&keys[i]); err != nil {
			return nil, err
		}
	}
	return groups, nil
}

// addOther adds a socket to the group of its state without an owner.
func addOther(groups []tcp.OwnerSockets, state tcp.State) []tcp.OwnerSockets {
	for i := range groups {
		if g := &groups[i]; g.State == state && g.CgroupID == 0 && g.Comm == (tcp.Comm{}) {
			g.Count++
			return groups
		}
	}
	return append(groups, tcp.OwnerSockets{State: state, Count: 1})
}
