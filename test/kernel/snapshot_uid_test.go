package kernel_test

import (
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/decode"
	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/netns"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// Sockets without a struct socket have a user, too: an orphan the one that it had, and a
// child that waits for accept() that of its listener.
func TestSnapshot_UIDWithoutSocket(t *testing.T) {
	tcplab.RequireRoot(t)
	const uid = 1234
	n := tcplab.NewNetns(t)
	chown := func(s *tcplab.Socket) {
		if err := unix.Fchown(s.FD, uid, -1); err != nil {
			t.Fatal(err)
		}
	}
	listener := n.Listen(tcplab.V4.At(7001))
	chown(listener)
	ofOrphan := n.Dial(tcplab.V4.At(7001))
	orphan := listener.Accept()
	chown(orphan)
	orphan.SetsockoptInt(unix.IPPROTO_TCP, unix.TCP_LINGER2, 120) // above a minute it stays a full socket
	orphan.Close()
	ofWaiting := n.Dial(tcplab.V4.At(7001))
	listener.AwaitReadable()
	uids := uidsByPeer(t, n)
	for what, peer := range map[string]*tcplab.Socket{"orphan": ofOrphan, "unaccepted child": ofWaiting} {
		if got, found := uids[peer.Addr()]; !found || got != uid {
			t.Errorf("the %s is there: %v, with uid %d, want %d", what, found, got, uid)
		}
	}
}

func uidsByPeer(t *testing.T, n *tcplab.Netns) map[netip.AddrPort]uint32 {
	t.Helper()
	here, err := netns.Find([]uint32{n.Inode()})
	if err != nil {
		t.Fatal(err)
	}
	uids := map[netip.AddrPort]uint32{}
	var e decode.Event
	err = probe.Snapshot(here, &filter.Filter{}, func(sample []byte, _ time.Duration) error {
		err := decode.Sample(sample, &e)
		if e.Kind == decode.KindSocket {
			uids[netip.AddrPortFrom(e.Transition.Peer.Addr, e.Transition.Peer.Port)] = e.Transition.UID
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return uids
}
