package kernel_test

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// Many resets at once, in system calls and in the softirqs that interrupt them, on all
// processors: the kernel's programs for resets interrupt each other. Each end is by the
// right side, or its reset is counted as lost.
func TestStorm_Resets(t *testing.T) {
	harness.RequireFeature(t, probe.SocketStorage) // the role
	harness.RequireTracedResets(t)
	var problems []string
	for range tcplab.Attempts() {
		if problems = stormOfResets(t); len(problems) == 0 {
			return
		}
		t.Log(problems)
	}
	t.Error(problems)
}

func stormOfResets(t *testing.T) []string {
	t.Helper()
	if err := harness.StopSharedTracers(); err != nil {
		t.Error(err)
	}
	n := tcplab.NewNetns(t)
	tr := harness.StartTracer(t, harness.InNamespace(n))
	const workers = 4
	share := harness.StormConnections(t) / 4 / workers
	var listeners [workers]*tcplab.Socket
	for i := range listeners {
		listeners[i] = n.Listen(tcplab.V4.At(uint16(7100 + i)))
	}
	n.Threads(workers, func(i int) error {
		return resetAll(listeners[i].FD, &unix.SockaddrInet4{Addr: tcplab.V4.Loopback().As4(), Port: 7100 + i}, share)
	})
	lines := tr.Stop()
	stop := lines[len(lines)-1]
	want := map[string]string{"client": "reset_sent", "server": "reset_received"}
	ends, wrong := uint64(0), uint64(0)
	for _, l := range harness.OfType(lines, "connection") {
		if want[l.Role] == "" {
			continue
		}
		ends++
		if l.ClosedBy != want[l.Role] {
			wrong++
			t.Logf("closed_by %q, want %q: %s", l.ClosedBy, want[l.Role], l.Raw)
		}
	}
	t.Logf("%d ends, %d of them by another side than it was; lost_resets %d", ends, wrong, stop.LostResets)
	if wrong > stop.LostResets {
		t.Errorf("%d of %d ends are by the wrong side, and %d resets are counted as lost", wrong, ends, stop.LostResets)
	}
	return harness.CompareCount("connection records", ends+stop.LostRingFull+stop.LostRingBusy+stop.LostReentry, uint64(2*workers*share))
}

// resetAll opens connections to the listener and resets them, one after another.
func resetAll(listener int, to unix.Sockaddr, count int) error {
	for range count {
		client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("socket: %w", err)
		}
		if err := unix.Connect(client, to); err != nil {
			return fmt.Errorf("connect: %w", err)
		}
		child, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		if err := unix.SetsockoptLinger(client, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
			return fmt.Errorf("SO_LINGER: %w", err)
		}
		unix.Close(client)
		unix.Close(child)
	}
	return nil
}
