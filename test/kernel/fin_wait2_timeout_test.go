package kernel_test

import (
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/tcp"
	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// finWait2Timeouts are values of TCP_LINGER2, and the timeout that the timewait socket in FIN_WAIT2 has then. Above a
// minute the socket first stays a full socket for what is more.
var finWait2Timeouts = []struct{ linger2, want int }{{0, 7}, {1, 1}, {3, 3}, {20, 20}, {60, 60}, {61, 1}}

// Each transition to TIME_WAIT in the substate FIN_WAIT2 has the timeout of its socket, by TCP_LINGER2 or, without
// that, tcp_fin_timeout. One that the peer closes first has none.
func TestFinWait2Timeout(t *testing.T) {
	t.Parallel()
	tcplab.RequireRoot(t)
	for _, f := range tcplab.Families {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			n := tcplab.NewNetns(t)
			n.Sysctl("net.ipv4.tcp_fin_timeout", "7")
			var mu sync.Mutex
			timeouts := make(map[uint16]time.Duration) // by local port
			o := harness.InNamespace(n)
			o.Observe = func(e *tcp.Transition) {
				if e.New == tcp.TimeWait {
					mu.Lock()
					defer mu.Unlock()
					timeouts[e.Local.Port] = e.FinWait2Timeout
					if (e.Substate == tcp.FinWait2) != (e.FinWait2Timeout > 0) || e.ResetCode != 0 {
						t.Errorf("substate %v, timeout %v, reset code %v", e.Substate, e.FinWait2Timeout, e.ResetCode)
					}
				}
			}
			tr := harness.StartTracer(t, o)
			listener := n.Listen(f.Anywhere(7001))
			want := make(map[uint16]time.Duration)
			for _, x := range finWait2Timeouts {
				client := n.Dial(f.At(7001))
				listener.Accept() // and never closes
				if x.linger2 > 0 {
					client.SetsockoptInt(unix.IPPROTO_TCP, unix.TCP_LINGER2, x.linger2)
				}
				want[client.Addr().Port()] = time.Duration(x.want) * time.Second
				client.Close()
			}
			tr.Await(func(string) bool {
				mu.Lock()
				defer mu.Unlock()
				return len(timeouts) >= len(want)
			})
			mu.Lock()
			defer mu.Unlock()
			for port, timeout := range want {
				if timeouts[port] != timeout {
					t.Errorf("port %d: %v, want %v", port, timeouts[port], timeout)
				}
			}
		})
	}
}
