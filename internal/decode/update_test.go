package decode

import (
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// A sample of kind update becomes a connection that lives: it has a congestion window, and no way in which it
// ended.
func TestSample_Update(t *testing.T) {
	live := wireEvent{timestamp: 9, cookie: 7, local: v4Local, peer: v4Peer, localPort: 80, peerPort: 5, family: 4, new: 8, role: 2}
	want := Event{
		Kind: KindUpdate,
		Transition: tcp.Transition{
			Monotonic: 9, Cookie: 7, Local: endpoint("192.0.2.1", 80), Peer: endpoint("198.51.100.7", 5), New: tcp.CloseWait, Role: tcp.RoleServer,
		},
		Connection: tcp.Connection{
			Phase: tcp.PhaseUpdate, OpenedAt: 1, EstablishedFor: 2, Sent: 3, Received: 4, Retransmits: 5, RTT: 6 * time.Microsecond, Cwnd: 7,
		},
	}
	got := leftover()
	if err := Sample(wireUpdateOf{wireEndOf{live, 1, 2, 3, 4, 5, 6}, 7}.bytes(), &got); err != nil || meaning(got) != want {
		t.Errorf("got  %+v, %v\nwant %+v", meaning(got), err, want)
	}
}
