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

// Snapshot hands over every TCP socket of the namespaces as they are now, as
// samples for internal/decode; handle must not keep the slice. keepalive is the
// namespace's net.ipv4.tcp_keepalive_intvl, 0 where it is not known. The paths of
// cgroups come as samples before the first socket that is in one.
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

const remedyEnter = "run as root (sudo tcpshift snapshot), or give the binary CAP_SYS_ADMIN besides CAP_BPF and CAP_PERFMON"

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
			return &HostError{"network namespaces are not for this user to enter", remedyEnter}
		}
		if err != nil {
			return fmt.Errorf("list sockets of network namespace %d: %w", n.Inode, err)
		}
		if err := s.handPaths(reader); err != nil {
			return err
		}
		if err := s.handSockets(sockets, keepalive); err != nil {
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

func (s *snapshot) handSockets(sockets []byte, keepalive time.Duration) error {
	const size = int(unsafe.Sizeof(bpfobj.ProbeSocketEvent{}))
	for ; len(sockets) >= size; sockets = sockets[size:] {
		if err := s.handle(sockets[:size], keepalive); err != nil {
			return err
		}
	}
	if len(sockets) > 0 {
		return fmt.Errorf("the kernel's list of sockets ends within one, after %d of %d bytes", len(sockets), size)
	}
	return nil
}

// handPaths gives what the iterators have put into the ring: paths of cgroups.
func (s *snapshot) handPaths(reader *ring.Reader) error {
	return reader.Read(0, func(sample []byte) error { return s.handle(sample, 0) })
}

// keepaliveHere is a sysctl of the namespace that the calling thread is in. The dump
// gives the same one in jiffies; the two together tell how long a jiffy is.
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
