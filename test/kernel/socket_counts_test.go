package kernel_test

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/tcp"
	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// Sockets count by their user, also those of more groups than the kernel's map has room for: each of them once, and
// so a second time.
func TestSocketCounts_BeyondTheMap(t *testing.T) {
	const (
		users    = 8192 + 500 // maxSocketGroups, and some
		firstUID = 200_000
	)
	allowDescriptors(t, users+1000)
	n := tcplab.NewNetns(t)
	o := harness.InNamespace(n)
	o.CountSockets = true
	tr := harness.StartTracer(t, o)
	harness.CheckInstructions(t, tr)
	n.Do(func() {
		for uid := range users {
			listenAs(t, firstUID+uid)
		}
		listenAs(t, firstUID) // two of one user
	})
	for range 2 {
		counts, byUser := make(map[tcp.SocketOwner]uint64), make(map[uint32]uint64)
		var err error
		n.Do(func() {
			err = tr.Probe.CountSockets(func(owner tcp.SocketOwner, count uint64) { counts[owner] += count })
		})
		if err != nil {
			t.Fatal(err) // every kernel of the matrix has the iterator
		}
		for owner, count := range counts {
			if owner.State == tcp.Listen {
				byUser[owner.UID] += count
			}
		}
		for uid := range uint32(users) {
			want := uint64(1)
			if uid == 0 {
				want = 2
			}
			if got := byUser[firstUID+uid]; got != want {
				t.Fatalf("%d listeners of user %d, want %d; %d groups in all", got, firstUID+uid, want, len(counts))
			}
		}
	}
	tr.Stop()
}

// listenAs makes a listener of a user, in the network namespace of this thread.
func listenAs(t *testing.T, uid int) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		t.Cleanup(func() { _ = unix.Close(fd) })
		err = unix.Fchown(fd, uid, -1)
	}
	if err == nil {
		err = unix.Listen(fd, 1)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// allowDescriptors raises this process's limit of descriptors to count, if it is lower.
func allowDescriptors(t *testing.T, count uint64) {
	var limit unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	if err == nil && limit.Cur < count {
		err = unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: count, Max: max(count, limit.Max)})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Two counts at the same time, as after a reload of the filters, have the same sockets, each of them once.
func TestSocketCounts_AtTheSameTime(t *testing.T) {
	tcplab.RequireRoot(t)
	const (
		users    = 500
		firstUID = 200_000
	)
	allowDescriptors(t, users+1000)
	n := tcplab.NewNetns(t)
	p, err := probe.Open(probe.Options{Filter: filter.Filter{Netns: []uint32{n.Inode()}}, CountSockets: true})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	n.Do(func() {
		for uid := range users {
			listenAs(t, firstUID+uid)
		}
	})
	n.Threads(2, func(int) error {
		for range 20 {
			var sockets uint64
			err := p.CountSockets(func(owner tcp.SocketOwner, count uint64) {
				if owner.State == tcp.Listen {
					sockets += count
				}
			})
			if err == nil && sockets != users {
				err = fmt.Errorf("%d listeners, want %d", sockets, users)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}
