package probe

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/bpfobj"
	"github.com/tcpshift/tcpshift/internal/netns"
	"github.com/tcpshift/tcpshift/internal/ring"
)

// Snapshot calls handle for every TCP socket of the namespaces as it is now, with a sample
// for internal/decode; handle must not keep the slice. keepalive is the namespace's
// net.ipv4.tcp_keepalive_intvl, 0 if it is not known. The path of a cgroup comes as a
// sample of its own, before the first socket in that cgroup. Snapshot returns a
// [*HostError] if this host cannot trace or a namespace cannot be entered.
func Snapshot(namespaces []netns.Namespace, handle func(sample []byte, keepalive time.Duration) error) error {
	kernel := NewKernel()
	if err := checkHost(kernel.types); err != nil {
		return err
	}
	spec, err := configure(Options{BufferSize: DefaultBufferSize}, kernel.Features(), snapshotPrograms, kernel)
	if err != nil {
		return err
	}
	s := &snapshot{handle: handle}
	if s.collection, err = ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Cache: kernel.types}); err != nil {
		return loadError(err)
	}
	defer s.collection.Close()
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
	if err := scan(s.collection); err != nil {
		return err
	}
	for _, n := range namespaces {
		var sockets []byte
		var keepalive time.Duration
		err := n.Do(func() (err error) {
			keepalive = keepaliveHere()
			sockets, err = s.dump()
			return err
		})
		if errors.Is(err, unix.EPERM) {
			return refused(&enterNetns)
		}
		if err != nil {
			return fmt.Errorf("list sockets of network namespace %d: %w", n.Inode, err)
		}
		if err := s.emitPaths(reader); err != nil {
			return err
		}
		if err := s.emitSockets(sockets, keepalive); err != nil {
			return err
		}
	}
	return nil
}

func (s *snapshot) dump() (sockets []byte, err error) {
	err = runIterator(s.collection.Programs[bpfobj.ProbeProgDumpSockets], func(r io.Reader) error {
		sockets, err = io.ReadAll(r)
		return err
	})
	return sockets, err
}

func (s *snapshot) emitSockets(sockets []byte, keepalive time.Duration) error {
	const size = int(unsafe.Sizeof(bpfobj.ProbeSocketEvent{}))
	for ; len(sockets) >= size; sockets = sockets[size:] {
		if err := s.handle(sockets[:size], keepalive); err != nil {
			return err
		}
	}
	if len(sockets) > 0 {
		return fmt.Errorf("the kernel's list of sockets ends in the middle of a socket, after %d of %d bytes", len(sockets), size)
	}
	return nil
}

// emitPaths hands over the paths of cgroups, which the iterators have put into the ring.
func (s *snapshot) emitPaths(reader *ring.Reader) error {
	return reader.Read(0, func(sample []byte) error { return s.handle(sample, 0) })
}

// keepaliveHere returns net.ipv4.tcp_keepalive_intvl of the calling thread's namespace, 0
// if it is not known. The dump has the sysctl in jiffies; the two show how long a jiffy is.
func keepaliveHere() time.Duration {
	b, err := os.ReadFile("/proc/sys/net/ipv4/tcp_keepalive_intvl")
	if err != nil {
		return 0
	}
	seconds, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return time.Duration(seconds) * time.Second
}
