package probe

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"sync"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/tcpshift/tcpshift/internal/bpfobj"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// ErrNoSocketCounts means that this kernel cannot count sockets by owner, that [Options.CountSockets] was not
// set, or that the Probe is closed.
var ErrNoSocketCounts = errors.New("count sockets: needs the iterator over TCP sockets (Linux 5.9)")

// maxSocketGroups bounds the groups of sockets of one namespace that are counted in the kernel. They take
// about 1 MiB. The sockets of further groups are passed on one by one.
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
	counting sync.Mutex // for a whole count: two at a time would take each other's groups

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

// CountSockets passes to add how many sockets that match the filters the network namespace of the calling thread
// has, by state, user and owner. It passes sockets beyond 8192 groups one by one, so a group may come
// several times. It walks the kernel's tables of listeners and connections. Any goroutine may call it at any time; one
// call waits for another. It fails with [ErrNoSocketCounts] after Close; what it has passed until then is not all.
func (p *Probe) CountSockets(add func(owner tcp.SocketOwner, count uint64)) error {
	g := &p.groups
	g.counting.Lock()
	defer g.counting.Unlock()
	r, err := g.iterator.open(ErrNoSocketCounts)
	if err != nil {
		return err
	}
	defer r.Close()
	err = errors.Join(readSocketGroups(r, add), g.take(add))
	if err != nil {
		return fmt.Errorf("count sockets: %w", err)
	}
	return nil
}

// readSocketGroups passes a socket for each group that count_sockets in bpf/count_sockets.h has written.
func readSocketGroups(r io.Reader, add func(owner tcp.SocketOwner, count uint64)) error {
	var group bpfobj.ProbeSocketGroup
	buffered := bufio.NewReaderSize(r, 1<<15) // the kernel's buffer has eight pages
	b := unsafe.Slice((*byte)(unsafe.Pointer(&group)), unsafe.Sizeof(group))
	for {
		if _, err := io.ReadFull(buffered, b); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		add(socketOwner(&group), 1)
	}
}

// take reads and deletes all groups of the map.
func (g *socketGroups) take(add func(owner tcp.SocketOwner, count uint64)) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.counts == nil {
		return ErrNoSocketCounts
	}
	var keys []bpfobj.ProbeSocketGroup
	var key bpfobj.ProbeSocketGroup
	var count uint64
	entries := g.counts.Iterate()
	for entries.Next(&key, &count) {
		keys = append(keys, key)
		add(socketOwner(&key), count)
	}
	if err := entries.Err(); err != nil {
		return err
	}
	for i := range keys {
		if err := g.counts.Delete(&keys[i]); err != nil {
			return err
		}
	}
	return nil
}

func socketOwner(g *bpfobj.ProbeSocketGroup) tcp.SocketOwner {
	return tcp.SocketOwner{CgroupID: g.CgroupId, Comm: tcp.Comm(g.Comm), UID: g.Uid, State: tcp.State(g.State)}
}
