package probe

import (
	"errors"
	"fmt"
	"io"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/bpfobj"
	"github.com/tcpshift/tcpshift/internal/netns"
)

// scan looks up who has which socket open: in the tables of all processes, and for
// MPTCP, whose subflows are in none, also among the sockets of each namespace.
func scan(c *ebpf.Collection) error {
	files := c.Programs[bpfobj.ProbeProgScanFiles]
	if files == nil {
		return nil // this kernel cannot
	}
	if err := runIterator(files, discard); err != nil {
		return fmt.Errorf("look for owners of open sockets: %w", err)
	}
	if !hasEntries(c.Maps[bpfobj.ProbeMapMptcpHolders]) {
		return nil
	}
	return adopt(c.Programs[bpfobj.ProbeProgAdoptSubflows])
}

// adopt goes through our own namespace, and through those that we may enter: without
// CAP_SYS_ADMIN there are none.
func adopt(subflows *ebpf.Program) error {
	if err := runIterator(subflows, discard); err != nil {
		return fmt.Errorf("look for owners of MPTCP subflows: %w", err)
	}
	namespaces, err := netns.Find(nil)
	if err != nil {
		return err
	}
	defer netns.CloseAll(namespaces)
	for _, n := range namespaces {
		err := n.Do(func() error { return runIterator(subflows, discard) })
		if err != nil && !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("look for owners of MPTCP subflows: %w", err)
		}
	}
	return nil
}

func hasEntries(m *ebpf.Map) bool {
	var key uint64
	return m.NextKey(nil, &key) == nil
}

// runIterator lets an iterator program run over everything and gives what it wrote.
func runIterator(program *ebpf.Program, use func(io.Reader) error) error {
	it, err := link.AttachIter(link.IterOptions{Program: program})
	if err != nil {
		return fmt.Errorf("attach iterator: %w", err)
	}
	defer it.Close()
	r, err := it.Open()
	if err != nil {
		return fmt.Errorf("open iterator: %w", err)
	}
	defer r.Close()
	return use(r)
}

func discard(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}
