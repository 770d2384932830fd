package limits

import (
	"net/netip"
	"testing"

	"github.com/tcpshift/tcpshift/internal/tcp"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// The kernel's counts have every listener, connection and timewait socket of both families in one
// namespace, and nothing else. They equal the number of listeners as long as there is nothing else.
func TestCounts_ListenersConnectionsTimeWaits(t *testing.T) {
	n := tcplab.NewNetns(t)
	expect := func(when string, want Counts, onlyListeners bool) {
		t.Helper()
		n.Do(func() {
			listeners := 0
			counts, err := ReadCounts()
			if err == nil {
				err = EachListener(func(*tcp.Listener) { listeners++ })
			}
			if err != nil || counts != want || counts.OnlyListeners(listeners) != onlyListeners {
				t.Errorf("%s: %+v beside %d listeners, %v; want %+v", when, counts, listeners, err, want)
			}
		})
	}
	expect("at first", Counts{}, true)
	families := []tcplab.Family{tcplab.V4, tcplab.V6, tcplab.Mapped}
	var listeners []*tcplab.Socket
	for i, f := range families {
		n.Socket(f.Loopback()).Bind(netip.AddrPortFrom(f.Loopback(), 0))
		listeners = append(listeners, n.Listen(f.At(0)))
		expect("with a listener and a socket that is only bound", Counts{Sockets: i + 1}, true)
	}
	for i, l := range listeners {
		client := n.Dial(l.Addr())
		child := l.Accept()
		expect("with a connection", Counts{len(listeners) + 2, i}, false)
		client.Close()
		child.ReadEOF()
		child.Close()
		n.Settle(len(listeners))
		expect("with a TIME_WAIT", Counts{len(listeners), i + 1}, false)
	}
}

// What is no line of the protocol with a number gives no counts: not 0.
func TestCounts_OfOtherText(t *testing.T) {
	for text, want := range map[string]bool{
		"sockets: used 9\nTCP: inuse 5 orphan 0 tw 2 alloc 7 mem 1\nUDP: inuse 1 mem 0\n": true,
		"TCP6: inuse 5\n": false, "TCP: inuse\n": false, "TCP: inuse x tw 2\n": false, "": false,
	} {
		sockets, timeWaits, ok := parseSockstat([]byte(text), "TCP:")
		if ok != want || ok && (sockets != 5 || timeWaits != 2) {
			t.Errorf("%q: %d sockets, %d timewait sockets, %v", text, sockets, timeWaits, ok)
		}
	}
}
