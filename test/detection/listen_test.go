package detection_test

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

const listenQueueFull = "listen_queue_full"

// knock begins a connection and does not wait for it. The client stays until the test ends.
func knock(t *testing.T, n *tcplab.Netns, to netip.AddrPort) {
	t.Helper()
	s := n.Socket(to.Addr())
	if err := unix.SetNonblock(s.FD, true); err != nil {
		t.Fatal(err)
	}
	_ = s.TryConnect(to)
}

// knockUntil begins connections at a rate until there is an alert of a phase, and returns that.
func knockUntil(t *testing.T, tr *tracer, n *tcplab.Netns, to netip.AddrPort, every time.Duration, phase string) alert {
	t.Helper()
	for deadline := time.Now().Add(waitLimit); time.Now().Before(deadline); time.Sleep(every) {
		if found := pick(tr.of(n.Inode()), listenQueueFull, phase); len(found) > 0 {
			t.Logf("%s: %s", found[0].Phase, found[0].Cause)
			return found[0]
		}
		knock(t, n, to)
	}
	t.Fatalf("no alert: %+v", tr.of(n.Inode()))
	return alert{}
}

// awaitClose waits until the alert of a namespace has closed.
func awaitClose(t *testing.T, tr *tracer, n *tcplab.Netns) alert {
	t.Helper()
	for deadline := time.Now().Add(waitLimit); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if closed := pick(tr.of(n.Inode()), listenQueueFull, "close"); len(closed) > 0 {
			return closed[0]
		}
	}
	t.Fatalf("it does not close: %+v", tr.of(n.Inode()))
	return alert{}
}

func listenWith(t *testing.T, n *tcplab.Netns, at netip.AddrPort, backlog int) *tcplab.Socket {
	t.Helper()
	s := n.Listen(at)
	if err := unix.Listen(s.FD, backlog); err != nil {
		t.Fatal(err)
	}
	return s
}

// acceptAll accepts whatever waits within a time, and closes it.
func acceptAll(s *tcplab.Socket, within time.Duration) {
	for deadline := time.Now().Add(within); time.Now().Before(deadline); {
		if fd, _, err := unix.Accept4(s.FD, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC); err == nil {
			unix.Close(fd)
		} else {
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// A listener whose queue overflows, or that nobody accepts from, raises one alert with the
// kernel's numbers and its process.
func TestListenQueue_RealListeners(t *testing.T) {
	tcplab.RequireRoot(t)
	tr := startTracer(t, "alerts")
	newNetns := func(t *testing.T) *tcplab.Netns {
		n := tcplab.NewNetns(t)
		tr.keepInodes(n)
		return n
	}
	check := func(t *testing.T, a alert, at netip.AddrPort, backlog int) {
		t.Helper()
		if a.PID != os.Getpid() || a.Role != "listener" || a.LocalAddr != at.Addr().String() || a.LocalPort != int(at.Port()) ||
			a.Capacity != backlog+1 || a.CapacityKind != "accept_queue" || a.Occupancy > backlog+1 || a.OccupancySource != "kernel" || a.Confidence != "full" {
			t.Errorf("want %v with room for %d: %+v", at, backlog+1, a)
		}
	}
	t.Run("listeners", func(t *testing.T) {
		for _, family := range tcplab.Families {
			t.Run("nobody accepts, "+fmt.Sprint(family), func(t *testing.T) {
				t.Parallel()
				n := newNetns(t)
				at := family.At(80)
				if family == tcplab.Mapped {
					at = family.Anywhere(80)
				}
				s := listenWith(t, n, at, 8)
				a := knockUntil(t, tr, n, family.At(80), 300*time.Millisecond, "open")
				check(t, a, at, 8)
				if a.Occupancy != 9 || a.Drops == 0 || a.Severity != "critical" {
					t.Errorf("want 9 connections and some drops: %+v", a)
				}
				if family == tcplab.V6 {
					s.Close()
				} else {
					go acceptAll(s, 30*time.Second)
				}
				if closed := awaitClose(t, tr, n); closed.CloseReason != "resolved" {
					t.Errorf("%+v", closed)
				}
			})
		}
		t.Run("a server that accepts slowly", func(t *testing.T) {
			t.Parallel()
			n := newNetns(t)
			at := tcplab.V4.At(80)
			s := listenWith(t, n, at, 4)
			stop := make(chan struct{})
			defer close(stop)
			go func() {
				for {
					select {
					case <-stop:
						return
					case <-time.After(700 * time.Millisecond):
						if fd, _, err := unix.Accept4(s.FD, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC); err == nil {
							unix.Close(fd)
						}
					}
				}
			}()
			a := knockUntil(t, tr, n, at, 100*time.Millisecond, "open")
			check(t, a, at, 4)
			if a.Drops == 0 || a.Severity != "critical" || !strings.Contains(a.Advice, "faster") {
				t.Errorf("%+v", a)
			}
		})
		t.Run("bursts, and a backlog of 1", func(t *testing.T) {
			t.Parallel()
			n := newNetns(t)
			at := tcplab.V4.At(80)
			s := listenWith(t, n, at, 1)
			go acceptAll(s, 50*time.Second)
			for range 3 {
				for range 60 {
					knock(t, n, at)
				}
				time.Sleep(15 * time.Second)
			}
			if found := pick(tr.of(n.Inode()), listenQueueFull, "open"); len(found) > 0 {
				t.Errorf("%+v", found)
			}
		})
		t.Run("a queue that is not full", func(t *testing.T) {
			t.Parallel()
			n := newNetns(t)
			at := tcplab.V4.At(80)
			listenWith(t, n, at, 100)
			a := knockUntil(t, tr, n, at, 500*time.Millisecond, "open")
			check(t, a, at, 100)
			if a.Occupancy > 100 || a.Drops != 0 || a.Severity != "warning" || !strings.Contains(a.Cause, "30s") {
				t.Errorf("%+v", a)
			}
		})
		t.Run("one member of a group", func(t *testing.T) {
			t.Parallel()
			s := newHostPair(t, tr, 5000)
			listen := workload{Listen: s.port(80), ReusePort: true, Backlog: 16}
			s.startServer(listen)
			s.startServer(listen)
			listen.NeverAccept = true
			stuck := s.startServer(listen)
			a := knockUntil(t, tr, s.server, s.port(80), 50*time.Millisecond, "open")
			if a.PID != stuck || a.Share != 1 || a.Capacity != 17 || !strings.Contains(a.Cause, "of the 3 listeners") {
				t.Errorf("want the queue of process %d: %+v", stuck, a)
			}
		})
	})
	tr.stop()
	everyAlertCloses(t, tr)
}

// A queue that was full before the tracer started, and to which nobody connects any more, is
// found by the kernel's table alone.
func TestListenQueue_FullBeforeStart(t *testing.T) {
	tcplab.RequireRoot(t)
	t.Parallel()
	n := tcplab.NewNetns(t)
	at := tcplab.V4.At(80)
	listenWith(t, n, at, 4)
	for range 5 {
		knock(t, n, at)
	}
	tr := startTracer(t, "alerts", "--netns", fmt.Sprint(n.Inode()))
	a := awaitAlert(t, tr, n, listenQueueFull)
	if a.LocalPort != 80 || a.Occupancy != 5 || a.Capacity != 5 || a.Drops != 0 || a.Severity != "warning" {
		t.Errorf("%+v", a)
	}
}
