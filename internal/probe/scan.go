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

// scan finds the owners of the sockets that are open: in the descriptor tables of all
// processes, and for MPTCP subflows, which are in no table, among the sockets of the network
// namespaces with MPTCP sockets.
func scan(c *ebpf.Collection) error {
	files := c.Programs[bpfobj.ProbeProgScanFiles]
	if files == nil {
		return nil // this kernel does not support it
	}
	// Of an earlier scan: another process's file may have the same address now.
	if err := errors.Join(empty[uint64](c.Maps[bpfobj.ProbeMapMptcpOwners]), empty[uint32](c.Maps[bpfobj.ProbeMapMptcpNamespaces])); err != nil {
		return fmt.Errorf("forget owners of MPTCP sockets: %w", err)
	}
	if err := runIterator(files, discard); err != nil {
		return fmt.Errorf("find owners of open sockets: %w", err)
	}
	inodes, err := keys[uint32](c.Maps[bpfobj.ProbeMapMptcpNamespaces])
	if err != nil {
		return fmt.Errorf("list namespaces with MPTCP sockets: %w", err)
	}
	return scanSubflows(c.Programs[bpfobj.ProbeProgScanSubflows], inodes)
}

// scanSubflows finds the owners of MPTCP subflows: it runs the iterator in the tracer's own
// namespace, then in each of the namespaces with these inodes that can be found and entered.
// Without CAP_SYS_ADMIN no other namespace can be entered.
func scanSubflows(subflows *ebpf.Program, inodes []uint32) error {
	if len(inodes) == 0 {
		return nil
	}
	if err := runIterator(subflows, discard); err != nil {
		return fmt.Errorf("find owners of MPTCP subflows: %w", err)
	}
	for _, n := range netns.FindExisting(inodes) {
		err := n.Do(func() error { return runIterator(subflows, discard) })
		if err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, netns.ErrGone) {
			return fmt.Errorf("find owners of MPTCP subflows: %w", err)
		}
	}
	return nil
}

// empty deletes all entries of a map that no program changes now.
func empty[K any](m *ebpf.Map) error {
	all, err := keys[K](m)
	for i := range all {
		err = errors.Join(err, m.Delete(&all[i]))
	}
	return err
}

func keys[K any](m *ebpf.Map) (all []K, err error) {
	var key K
	var value []byte
	entries := m.Iterate()
	for entries.Next(&key, &value) {
		all = append(all, key)
	}
	return all, entries.Err()
}

// runIterator runs an iterator program over all objects and passes its output to use.
func runIterator(program *ebpf.Program, use func(io.Reader) error) error {
	r, err := openIterator(program)
	if err != nil {
		return err
	}
	defer r.Close()
	return use(r)
}

// openIterator returns the output of an iterator program, which runs as the caller reads. An iterator
// over sockets shows those of the calling thread's network namespace.
func openIterator(program *ebpf.Program) (io.ReadCloser, error) {
	it, err := link.AttachIter(link.IterOptions{Program: program})
	if err != nil {
		return nil, fmt.Errorf("attach iterator: %w", err)
	}
	defer it.Close() // the opened iterator does not need it
	r, err := it.Open()
	if err != nil {
		return nil, fmt.Errorf("open iterator: %w", err)
	}
	return iterator{steadyReader{r}, r}, nil
}

type iterator struct {
	steadyReader
	io.Closer
}

// steadyReader reads on where an iterator stops early: after 1,000,000 objects without output
// the kernel's read fails with EAGAIN (MAX_ITER_OBJECTS, kernel/bpf/bpf_iter.c).
type steadyReader struct{ io.Reader }

// Read returns what the iterator has, and reads again after EAGAIN if it had nothing.
func (r steadyReader) Read(p []byte) (int, error) {
	for {
		n, err := r.Reader.Read(p)
		if !errors.Is(err, unix.EAGAIN) {
			return n, err
		}
		if n > 0 {
			return n, nil
		}
	}
}

func discard(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}
