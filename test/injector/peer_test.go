package injector

import (
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

const (
	peerPort   = 7900
	kernelPort = 7001
)

// eachFamily runs a test in IPv4, IPv6 and with an IPv6 socket that carries IPv4.
func eachFamily(t *testing.T, body func(t *testing.T, n *tcplab.Netns, f tcplab.Family, p *Peer)) {
	t.Helper()
	for _, f := range tcplab.Families {
		t.Run(f.String(), func(t *testing.T) {
			n := tcplab.NewNetns(t)
			body(t, n, f, New(t, n, f.At(peerPort)))
		})
	}
}

func listen(n *tcplab.Netns, f tcplab.Family) *tcplab.Socket {
	if f == tcplab.Mapped {
		return n.Listen(f.Anywhere(kernelPort))
	}
	return n.Listen(f.At(kernelPort))
}

// The kernel connects to a peer, which answers, exchanges data and closes first. That
// the kernel accepts the segments shows that their checksums are right.
func TestPeer_Server(t *testing.T) {
	eachFamily(t, func(t *testing.T, n *tcplab.Netns, f tcplab.Family, p *Peer) {
		client := n.Socket(f.Loopback())
		client.StartConnect(f.At(peerPort))
		c, syn := p.Accept()
		if syn.Data != "" {
			t.Errorf("SYN with data %q", syn.Data)
		}
		c.Send(SYN|ACK, "")
		client.Await(tcplab.Established)
		client.Write("question")
		if got := c.Await(PSH).Data; got != "question" {
			t.Errorf("received %q", got)
		}
		c.Send(ACK, "answer")
		if got := client.Read(); got != "answer" {
			t.Errorf("the kernel received %q", got)
		}
		c.Send(FIN|ACK, "")
		client.ReadEOF()
		client.Shutdown(unix.SHUT_WR)
		c.Await(FIN)
		c.Send(ACK, "")
		client.Await(tcplab.Close)
	})
}

// A peer connects to the kernel and resets the connection.
func TestPeer_ClientAndReset(t *testing.T) {
	eachFamily(t, func(_ *testing.T, n *tcplab.Netns, f tcplab.Family, p *Peer) {
		listener := listen(n, f)
		c := p.Dial(f.At(kernelPort))
		child := listener.Accept()
		child.Write("data")
		c.AwaitData(len("data"))
		c.Send(RST|ACK, "")
		child.AwaitError(unix.ECONNRESET)
	})
}

// Nothing answers for the peer: segments that it does not expect get no reset.
func TestPeer_KernelDoesNotAnswerForIt(t *testing.T) {
	eachFamily(t, func(_ *testing.T, n *tcplab.Netns, f tcplab.Family, p *Peer) {
		client := n.Socket(f.Loopback())
		client.StartConnect(f.At(peerPort))
		p.Accept()
		client.AwaitInfo("retransmission", func(i *unix.TCPInfo) bool { return i.Total_retrans > 0 })
		client.Await(tcplab.SynSent)
	})
}

// An ICMP error reaches the socket, with IP_RECVERR at once.
func TestPeer_Unreachable(t *testing.T) {
	eachFamily(t, func(t *testing.T, n *tcplab.Netns, f tcplab.Family, p *Peer) {
		listener := listen(n, f)
		c := p.Dial(f.At(kernelPort))
		child := listener.Accept()
		if f == tcplab.V6 {
			child.SetsockoptInt(unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1)
		} else {
			child.SetsockoptInt(unix.IPPROTO_IP, unix.IP_RECVERR, 1)
		}
		child.Write("data")
		c.AwaitData(len("data"))
		c.Unreachable()
		for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			got, err := unix.GetsockoptInt(child.FD, unix.SOL_SOCKET, unix.SO_ERROR)
			if err != nil {
				t.Fatal(err)
			}
			if got != 0 {
				if unix.Errno(got) != unix.EHOSTUNREACH {
					t.Errorf("SO_ERROR %v", unix.Errno(got))
				}
				return
			}
			if time.Now().After(deadline) {
				t.Fatal("no error on the socket")
			}
		}
	})
}

// A segment that is encoded and parsed is the same segment, and its checksum covers the
// pseudo-header.
func TestSegment_RoundTrip(t *testing.T) {
	from, to := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	want := Segment{From: 1, To: 2, Seq: 1 << 31, Ack: 3, Flags: SYN | ACK, Window: 4, Options: []byte{2, 4, 5, 180}, Data: "odd"}
	b := want.marshal(from, to)
	got, err := parse(b)
	if err != nil || got.String() != want.String() || got.Data != want.Data || string(got.Options) != string(want.Options) || got.Window != want.Window {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if got.End() != want.Seq+4 {
		t.Errorf("end %d", got.End())
	}
	pseudo := append(append(from.AsSlice(), to.AsSlice()...), 0, 0, 0, byte(len(b)), 0, 0, 0, unix.IPPROTO_TCP)
	if sum := checksum(append(pseudo, b...)); sum != 0 {
		t.Errorf("the checksum is wrong by %#x", sum)
	}
}

// What is not a segment is an error.
func TestSegment_ParseErrors(t *testing.T) {
	for _, b := range [][]byte{nil, make([]byte, 19), make([]byte, 20), append(make([]byte, 12), 0xf0, 0, 0, 0, 0, 0, 0, 0)} {
		if s, err := parse(b); err == nil {
			t.Errorf("parse(%v): %+v", b, s)
		}
	}
	for _, b := range [][]byte{nil, {0x4f, 0}} {
		if _, err := skipIPv4(b); err == nil {
			t.Errorf("skipIPv4(%v): no error", b)
		}
	}
}
