package detection_test

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// lingerLoads are loads whose peers never close, and which leave ports free because their sockets wait in FIN_WAIT2 for
// a few seconds only. For 61 s, or for the default of tcp_fin_timeout, they would take all ports several times.
var lingerLoads = []struct {
	name       string
	family     tcplab.Family
	linger2    int
	finTimeout string
	every      time.Duration
}{
	{"TCP_LINGER2 of 3 s", tcplab.V4, 3, "60", 25 * time.Millisecond},
	{"TCP_LINGER2 of 3 s", tcplab.V6, 3, "60", 25 * time.Millisecond},
	{"TCP_LINGER2 of 3 s", tcplab.Mapped, 3, "60", 25 * time.Millisecond},
	{"TCP_LINGER2 above tcp_fin_timeout", tcplab.V4, 5, "1", 40 * time.Millisecond},
	{"tcp_fin_timeout of 3 s", tcplab.V4, 0, "3", 16 * time.Millisecond},
}

// Sockets whose peers never close keep their ports for their own timeouts: no storm where these are short.
func TestAlert_NoneForShortFinWait2(t *testing.T) {
	tcplab.RequireRoot(t)
	t.Parallel()
	const lasting = 40 * time.Second
	for _, load := range lingerLoads {
		t.Run(fmt.Sprint(load.name, load.family), func(t *testing.T) {
			t.Parallel()
			n := tcplab.NewNetns(t)
			n.Sysctl("net.ipv4.ip_local_port_range", "40000 40299")
			n.Sysctl("net.ipv4.tcp_tw_reuse", "0")
			n.Sysctl("net.ipv4.tcp_fin_timeout", load.finTimeout)
			tr := startTracer(t, "alerts", "--netns", fmt.Sprint(n.Inode()))
			listener := n.Listen(load.family.Anywhere(80))
			made, ticks := 0, time.NewTicker(load.every)
			defer ticks.Stop()
			for began := time.Now(); time.Since(began) < lasting; <-ticks.C {
				client, child := n.Dial(load.family.At(80)), listener.Accept()
				if load.linger2 > 0 {
					client.SetsockoptInt(unix.IPPROTO_TCP, unix.TCP_LINGER2, load.linger2)
				}
				client.Close()
				child.ReadEOF()
				child.SetsockoptInt(unix.IPPROTO_TCP, unix.TCP_REPAIR, 1) // the child ends without a FIN
				child.Close()
				made++
			}
			if made < 600 {
				t.Errorf("only %d connections: this proves nothing", made)
			}
			for _, a := range tr.of(n.Inode()) {
				if a.Kind == "time_wait_storm" || a.Kind == "port_exhaustion" {
					t.Errorf("%d connections, and all found a port: %+v", made, a)
				}
			}
		})
	}
}
