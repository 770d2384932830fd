package snapshot

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

func socketOf(comm string, peer uint16, state tcp.State) *tcp.Socket {
	s := &tcp.Socket{}
	s.New, s.Owner.Source = state, tcp.PIDScan
	copy(s.Owner.Comm[:], comm)
	s.Peer = tcp.Endpoint{Addr: netip.MustParseAddr("192.0.2.1"), Port: peer}
	return s
}

// Sockets count together if their values of the keys are equal, whatever the rest is.
func TestCount_Groups(t *testing.T) {
	c := newCounter([]tcp.SocketKey{tcp.KeyState, tcp.KeyComm, tcp.KeyPeerAddr})
	for _, s := range []*tcp.Socket{
		socketOf("a", 1, tcp.Established), socketOf("b", 1, tcp.Established), socketOf("b", 2, tcp.Established),
		socketOf("b", 3, tcp.CloseWait), socketOf("b", 3, tcp.CloseWait), socketOf("b", 3, tcp.CloseWait),
	} {
		c.add(s)
	}
	unknown := socketOf("", 9, tcp.TimeWait)
	unknown.Owner = tcp.Owner{}
	c.add(unknown)
	var got []string
	for _, n := range c.counts(time.Time{}) {
		got = append(got, fmt.Sprintf("%d %v %s %v %v", n.Sockets, n.State, n.Comm.Bytes(), n.Peer.Port, n.CommKnown))
	}
	want := []string{"3 CLOSE_WAIT b 0 true", "2 ESTABLISHED b 0 true", "1 ESTABLISHED a 0 true", "1 TIME_WAIT  0 false"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Of more groups than there is room for, the large ones are counted, and the sum is exact.
func TestCount_Bounded(t *testing.T) {
	c := newCounter([]tcp.SocketKey{tcp.KeyPeer})
	const groups, large, size = 50_000, 5, 2_000
	for i := range groups {
		c.add(socketOf("a", uint16(i%large+1), tcp.Established))
		s := socketOf("a", 443, tcp.Established)
		s.Peer.Addr = netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		c.add(s)
	}
	counts := c.counts(time.Time{})
	var sum uint64
	for _, n := range counts {
		sum += n.Sockets
	}
	if sum != 2*groups || len(counts) != maxGroups+1 || !counts[maxGroups].Other {
		t.Errorf("%d counts with the sum %d, want %d with %d", len(counts), sum, maxGroups+1, 2*groups)
	}
	for _, n := range counts[:large] {
		if n.Sockets < size {
			t.Errorf("a large group has %d", n.Sockets)
		}
	}
}
