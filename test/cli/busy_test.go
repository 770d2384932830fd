package cli_test

import (
	"net/netip"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// The counters of stop add up on a busy host, whether all transitions are filtered or
// dropped.
func TestStop_BusyHost(t *testing.T) {
	requireRoot(t)
	for name, args := range map[string][]string{
		"all filtered": quiet,
		"all dropped":  {"--only", "stats"},
	} {
		t.Run(name, func(t *testing.T) {
			tr := startTracer(t, append(args, "--stats-interval", "1ms"))
			keepBusy(t)
			tr.next()
			tr.next()
			if got := tr.stop(); got.last().Seen == 0 {
				t.Errorf("the test is wrong, no transition fired\n%v", got.result)
			}
		})
	}
}

// keepBusy makes a socket listen and shut down without a pause until the test ends. Each
// round is two transitions.
func keepBusy(t *testing.T) {
	t.Helper()
	n := tcplab.NewNetns(t)
	s := n.Socket(netip.IPv4Unspecified())
	var enough atomic.Bool
	ended := make(chan error)
	go func() {
		var err error
		for err == nil && !enough.Load() {
			if err = unix.Listen(s.FD, 1); err == nil {
				err = unix.Shutdown(s.FD, unix.SHUT_RD)
			}
		}
		ended <- err
	}()
	t.Cleanup(func() {
		enough.Store(true)
		if err := <-ended; err != nil {
			t.Errorf("listen and shut down: %v", err)
		}
	})
}
