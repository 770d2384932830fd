package kernel_test

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// retransmits and rtt_ns of a connection record are what TCP_INFO reports right before the
// end. The connection ends with a reset, which changes neither.
func TestConnection_RetransmitsAndRTT(t *testing.T) {
	harness.SharedTracers(t) // load them before the cases run in parallel
	for _, row := range []struct {
		name  string
		least uint32 // retransmissions that the test causes
		lose  func(c *talk)
	}{
		{"nothing lost", 0, func(c *talk) { c.open() }},
		{"the SYN", 1, func(c *talk) {
			c.listener.DropIncoming()
			c.client.StartConnect(tcplab.V4.At(7100))
			c.awaitRetransmits(1)
			c.listener.AllowIncoming()
			c.child = c.listener.Accept()
			c.client.Await(tcplab.Established)
		}},
		{"data, three times", 3, func(c *talk) {
			c.open()
			c.child.DropIncoming()
			c.client.Write("lost")
			c.awaitRetransmits(3)
			c.child.AllowIncoming()
			c.child.Read()
		}},
		{"the FIN, twice", 2, func(c *talk) {
			c.open()
			c.child.DropIncoming()
			c.client.Shutdown(unix.SHUT_WR)
			c.awaitRetransmits(2)
			c.child.AllowIncoming()
			c.child.ReadEOF()
			c.client.Await(tcplab.FinWait2)
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			var info *unix.TCPInfo
			var local netip.AddrPort
			lines := harness.RecordsOf(t, func(n *tcplab.Netns) {
				c := &talk{n: n, listener: n.Listen(tcplab.V4.At(7100)), client: n.Socket(tcplab.V4.Loopback())}
				row.lose(c)
				c.awaitQuiet()
				info, local = c.client.Info(), c.client.Addr()
				c.client.SetLinger(0)
				c.client.Close()
				c.child.Await(tcplab.Close)
				c.child.Close()
				c.listener.Close()
			})
			if info.Total_retrans < row.least {
				t.Fatalf("the test is wrong: it caused %d retransmissions, not %d", info.Total_retrans, row.least)
			}
			found := 0
			for _, l := range harness.OfType(lines, "connection") {
				if l.LocalPort != local.Port() {
					continue
				}
				found++
				if l.Retransmits != uint64(info.Total_retrans) || l.RTT != uint64(info.Rtt)*1000 || l.RTT == 0 {
					t.Errorf("TCP_INFO reported %d retransmissions and a round trip of %d us: %s", info.Total_retrans, info.Rtt, l.Raw)
				}
			}
			if found != 1 {
				t.Errorf("%d connection records of the client, want 1", found)
			}
		})
	}
}

type talk struct {
	n                       *tcplab.Netns
	listener, client, child *tcplab.Socket
}

func (c *talk) open() {
	c.client.Connect(tcplab.V4.At(7100))
	c.child = c.listener.Accept()
	c.child.Await(tcplab.Established)
}

func (c *talk) awaitRetransmits(least uint32) {
	c.client.AwaitInfo("retransmission", func(i *unix.TCPInfo) bool { return i.Total_retrans >= least })
}

// awaitQuiet waits until all that the client sent is acknowledged.
func (c *talk) awaitQuiet() {
	c.client.AwaitInfo("acknowledgement of all", func(i *unix.TCPInfo) bool { return i.Unacked == 0 })
}
