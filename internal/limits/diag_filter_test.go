package limits

import (
	"encoding/hex"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// The filter is the bytecode of sock_diag, byte for byte (on little-endian machines as here).
func TestPeerFilter_Bytecode(t *testing.T) {
	peers := []tcp.Endpoint{
		{Addr: netip.MustParseAddr("10.9.0.2"), Port: 80},
		{Addr: netip.MustParseAddr("2001:db8::2"), Port: 443},
		{Addr: netip.MustParseAddr("::ffff:10.9.0.3"), Port: 81},
	}
	want := "4c00" + "0100" + // 76 bytes, in INET_DIAG_REQ_BYTECODE
		"08101400" + "02200000" + "50000000" + "0a090002" + "01043800" +
		"081c2000" + "0a800000" + "bb010000" + "20010db8000000000000000000000002" + "01041800" +
		"08101800" + "02200000" + "51000000" + "0a090003" + "01040400"
	if got := hex.EncodeToString(peerFilter(peers)); got != want {
		t.Errorf("the filter is\n%s, want\n%s", got, want)
	}
	if peerFilter(nil) != nil || peerFilter(make([]tcp.Endpoint, maxFilterConds+1)) != nil {
		t.Error("there is a filter for no peer, or for too many")
	}
}

// The kernel accepts the filter, and lists the sockets of these peers and no others: IPv4,
// IPv6, v4-mapped, open and timewait.
func TestEachWithPeer_OnlyThese(t *testing.T) {
	listeners := map[string]net.Listener{}
	for network, at := range map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0", "tcp": "[::]:0"} {
		l, err := net.Listen(network, at)
		if err != nil {
			t.Skipf("listen at %s: %v", at, err)
		}
		t.Cleanup(func() { l.Close() })
		listeners[network] = l
	}
	dial := func(network, address string) (local uint16) {
		t.Helper()
		l := listeners[network]
		_, port, _ := net.SplitHostPort(l.Addr().String())
		c, err := net.Dial("tcp", net.JoinHostPort(address, port))
		if err != nil {
			t.Fatal(err)
		}
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close(); s.Close() })
		return c.LocalAddr().(*net.TCPAddr).AddrPort().Port()
	}
	portOf := func(network string) uint16 { return listeners[network].Addr().(*net.TCPAddr).AddrPort().Port() }
	v4, v6 := dial("tcp4", "127.0.0.1"), dial("tcp6", "::1")
	mapped := dial("tcp", "127.0.0.1") // its server is a v4-mapped socket, whose peer is this port

	list := func(peers ...tcp.Endpoint) map[uint16]tcp.State {
		t.Helper()
		found := make(map[uint16]tcp.State)
		if err := EachWithPeer(peers, func(s *tcp.Socket) { found[s.Local.Port] = s.New }); err != nil {
			t.Fatal(err)
		}
		return found
	}
	loopback := netip.MustParseAddr("127.0.0.1")
	first := tcp.Endpoint{Addr: loopback, Port: portOf("tcp4")}
	second := tcp.Endpoint{Addr: netip.IPv6Loopback(), Port: portOf("tcp6")}
	if found := list(first); len(found) != 1 || found[v4] != tcp.Established {
		t.Errorf("IPv4: %v, want port %d alone", found, v4)
	}
	if found := list(first, second, tcp.Endpoint{Addr: loopback, Port: 1}); len(found) != 2 || found[v4] == 0 || found[v6] == 0 {
		t.Errorf("both: %v, want ports %d and %d", found, v4, v6)
	}
	if found := list(tcp.Endpoint{Addr: loopback, Port: mapped}); len(found) != 1 || found[portOf("tcp")] != tcp.Established {
		t.Errorf("v4-mapped: %v, want port %d alone", found, portOf("tcp"))
	}
	if found := list(); len(found) != 0 {
		t.Errorf("no peer: %v", found)
	}

	p := connect(t, listeners["tcp4"])
	p.client.Close()
	if _, err := p.server.Read(make([]byte, 1)); err == nil {
		t.Error("there is no end of the stream")
	}
	p.server.Close()
	for deadline := time.Now().Add(10 * time.Second); list(first)[p.from] != tcp.TimeWait; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the TIME_WAIT of port %d is not listed: %v", p.from, list(first))
		}
	}
}

// What a kernel answered: the TIME_WAIT of a v4-mapped socket; a connection, a timewait socket in
// FIN_WAIT2 and one in TIME_WAIT of IPv4; and the end. Behind each message are attributes.
func TestSockDiag_RecordedAnswer(t *testing.T) {
	const recorded = "" +
		"600000001400020000000000211f00000a0603009c721ba900000000000000000000ffff7f00000100000000000000000000ffff7f000001" +
		"0000000057f190010000000094e900000000000000000000000000000000000008000f0000000000" +
		"600000001400020000000000211f0000020503009c4e1ba87f0000010000000000000000000000007f000001000000000000000000000000" +
		"0000000054f190010000000098e900000000000000000000000000000000000008000f0000000000" +
		"600000001400020000000000211f0000020603009c541ba87f0000010000000000000000000000007f000001000000000000000000000000" +
		"0000000055f190010000000094e900000000000000000000000000000000000008000f0000000000" +
		"7c0000001400020000000000211f000002010000a0261ba87f0000010000000000000000000000007f000001000000000000000000000000" +
		"0000000056f19001000000000000000000000000000000000000000099004f03050008000000000008000f00000000000c00150001000000" +
		"000000000600160052000000" +
		"140000000300020000000000211f000000000000"
	raw, err := hex.DecodeString(recorded)
	if err != nil {
		t.Fatal(err)
	}
	var got []tcp.Socket
	done, err := parseMessages(raw, func(m *diagMessage, _ []byte) { got = append(got, socket(m)) })
	if err != nil || !done || len(got) != 4 {
		t.Fatalf("%d sockets, done %v, %v", len(got), done, err)
	}
	loopback := netip.MustParseAddr("127.0.0.1")
	for i, want := range []struct {
		state, substate tcp.State
		local, peer     uint16
		left            time.Duration
	}{
		{tcp.TimeWait, tcp.TimeWait, 40050, 7081, 59796 * time.Millisecond},
		{tcp.TimeWait, tcp.FinWait2, 40014, 7080, 59800 * time.Millisecond},
		{tcp.TimeWait, tcp.TimeWait, 40020, 7080, 59796 * time.Millisecond},
		{tcp.Established, 0, 40998, 7080, 0 * time.Millisecond},
	} {
		s := got[i]
		if s.New != want.state || s.Substate != want.substate || s.ExpiresIn != want.left || s.Cookie == 0 ||
			s.Local != (tcp.Endpoint{Addr: loopback, Port: want.local}) || s.Peer != (tcp.Endpoint{Addr: loopback, Port: want.peer}) {
			t.Errorf("socket %d is %+v, want %+v", i, s, want)
		}
	}
}
