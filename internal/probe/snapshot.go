package probe

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/bpfobj"
	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/netns"
	"github.com/tcpshift/tcpshift/internal/ring"
	"github.com/tcpshift/tcpshift/internal/safeopen"
)

// Snapshot calls handle for every TCP socket of the namespaces that passes f as it is now. A state
// passes if it is in f.NewStates, or if that is empty. Snapshot ignores f's filter on namespaces. handle gets a sample
// for internal/decode, and must not keep the slice. keepalive is the namespace's
// net.ipv4.tcp_keepalive_intvl, 0 if it is not known. The path of a cgroup comes as a
// sample of its own, before the first socket in that cgroup, if there was room for it. A
// namespace that has ended since it was found is skipped, unless it is Required. Snapshot returns
// a [*HostError] if this host cannot trace or a namespace cannot be entered.
func Snapshot(namespaces []netns.Namespace, f *filter.Filter, handle func(sample []byte, keepalive time.Duration) error) error {
	kernel := NewKernel()
	if err := checkHost(kernel.types); err != nil {
		return err
	}
	spec, err := configure(Options{Filter: *f, BufferSize: DefaultBufferSize}, kernel.Features(), snapshotPrograms, kernel)
	if err != nil {
		return err
	}
	s := &snapshot{handle: handle}
	if s.collection, err = ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Cache: kernel.types}); err != nil {
		return loadError(err)
	}
	defer s.collection.Close()
	if err := fillFilterMaps(s.collection.Maps, f); err != nil {
		return err
	}
	return s.take(namespaces)
}

type snapshot struct {
	collection *ebpf.Collection
	handle     func(sample []byte, keepalive time.Duration) error
}

func (s *snapshot) take(namespaces []netns.Namespace) error {
	reader, err := openRings(nil, s.collection)
	if err != nil {
		return err
	}
	defer reader.Close()
	// Without owners the sockets are still worth a list; the error is reported after it.
	scanned := scan(s.collection)
	gone, err := s.each(reader, namespaces)
	if err != nil || len(gone) == 0 {
		return errors.Join(scanned, err)
	}
	// What led to these has ended. Others may still refer to them.
	gone, err = s.each(reader, findAgain(gone))
	for _, n := range gone {
		if n.Required {
			err = errors.Join(err, fmt.Errorf("list sockets of network namespace %d: %w", n.Inode, netns.ErrGone))
		}
	}
	return errors.Join(scanned, err)
}

// findAgain searches for namespaces that are no longer where they were found: one walk for
// all. Those that it does not find keep their place.
func findAgain(gone []netns.Namespace) []netns.Namespace {
	var inodes []uint32
	for _, n := range gone {
		inodes = append(inodes, n.Inode)
	}
	for _, found := range netns.FindExisting(inodes) {
		gone[slices.Index(inodes, found.Inode)].Path = found.Path
	}
	return gone
}

// each lists the sockets of one namespace after the other. It returns the namespaces that are
// no longer where they were found.
func (s *snapshot) each(reader *ring.Reader, namespaces []netns.Namespace) (gone []netns.Namespace, err error) {
	for _, n := range namespaces {
		err := s.list(reader, n)
		if errors.Is(err, netns.ErrGone) {
			gone = append(gone, n)
		} else if err != nil {
			return nil, err
		}
	}
	return gone, nil
}

// list hands over the sockets of one namespace in pieces, so that a million of them take little
// memory. The iterator keeps the namespace alive until it is closed.
func (s *snapshot) list(reader *ring.Reader, n netns.Namespace) error {
	sockets, keepalive, err := s.openDump(n)
	if err != nil {
		return err
	}
	defer sockets.Close()
	piece := make([]byte, socketsInPiece*socketSize)
	for {
		length, readErr := io.ReadFull(sockets, piece)
		// The iterator puts the path of a cgroup into the ring before its first socket.
		if err := s.emitPaths(reader); err != nil {
			return err
		}
		if err := s.emitSockets(piece[:length], keepalive); err != nil {
			return err
		}
		switch {
		case errors.Is(readErr, io.EOF) || errors.Is(readErr, io.ErrUnexpectedEOF):
			return nil
		case readErr != nil:
			return fmt.Errorf("list sockets of network namespace %d: %w", n.Inode, readErr)
		}
	}
}

// openDump opens the iterator over the sockets of a namespace. Only its opening needs a thread in the
// namespace; the caller reads it outside, because the reader of the output may stall.
func (s *snapshot) openDump(n netns.Namespace) (sockets io.ReadCloser, keepalive time.Duration, err error) {
	err = n.Do(func() (err error) {
		keepalive = keepaliveHere()
		sockets, err = openIterator(s.collection.Programs[bpfobj.ProbeProgDumpSockets])
		return err
	})
	switch {
	case err == nil || errors.Is(err, netns.ErrGone):
		return sockets, keepalive, err
	case errors.Is(err, unix.EPERM):
		return nil, 0, refused(&enterNetns)
	}
	return nil, 0, fmt.Errorf("list sockets of network namespace %d: %w", n.Inode, err)
}

const (
	socketSize = int(unsafe.Sizeof(bpfobj.ProbeSocketEvent{}))
	// socketsInPiece bounds the memory for sockets that are not handed over yet, to 32 KiB.
	// The kernel prepares as much for one read (bpf_seq_read, kernel/bpf/bpf_iter.c).
	socketsInPiece = 256
)

func (s *snapshot) emitSockets(sockets []byte, keepalive time.Duration) error {
	for ; len(sockets) >= socketSize; sockets = sockets[socketSize:] {
		if err := s.handle(sockets[:socketSize], keepalive); err != nil {
			return err
		}
	}
	if len(sockets) > 0 {
		return fmt.Errorf("the kernel's list of sockets ends in the middle of a socket, after %d of %d bytes", len(sockets), socketSize)
	}
	return nil
}

// emitPaths hands over the paths of cgroups, which the iterators have put into the ring.
func (s *snapshot) emitPaths(reader *ring.Reader) error {
	return reader.ReadFor(0, func(sample []byte) error { return s.handle(sample, 0) })
}

// keepaliveHere returns net.ipv4.tcp_keepalive_intvl of the calling thread's namespace, 0
// if it is not known. The dump has the sysctl in jiffies; the two show how long a jiffy is.
func keepaliveHere() time.Duration {
	b, err := safeopen.ReadFile("/proc/sys/net/ipv4/tcp_keepalive_intvl")
	if err != nil {
		return 0
	}
	seconds, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return time.Duration(seconds) * time.Second
}
