package tcplab

import "golang.org/x/sys/unix"

// Each scenario drives one connection to its end and returns the sockets
// involved. Above each are the states of each socket, as the tracepoint shows
// them; a listener is CLOSE LISTEN CLOSE where nothing else is said, and
// "then TIME_WAIT" is the timewait socket that the tracepoint does not show.

// ClientCloses is the orderly end, begun by the client.
//
//	client  CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE, then TIME_WAIT
//	child   LISTEN SYN_RECV ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE
func ClientCloses(n *Netns, f Family) Outcome {
	n.t.Helper()
	c := establish(n, f)
	c.client.Close()
	c.child.ReadEOF()
	c.child.Close()
	c.out.Client.Left = TimeWait
	return c.finish(closesFirst, closesLast)
}

// ServerCloses is the orderly end, begun by the server: the TIME_WAIT is there.
//
//	client  CLOSE SYN_SENT ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE
//	child   LISTEN SYN_RECV ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE, then TIME_WAIT
func ServerCloses(n *Netns, f Family) Outcome {
	n.t.Helper()
	c := establish(n, f)
	c.child.Close()
	c.client.ReadEOF()
	c.client.Close()
	c.out.Child.Left = TimeWait
	return c.finish(connected.Then(CloseWait, LastAck, Close), accepted.Then(FinWait1, FinWait2, Close))
}

// SimultaneousClose has both sides send a FIN before either has seen the
// other's. The child then hears the client's retransmitted one first, and the
// client learns of both at once. (For CLOSING on both sides two FINs must be
// in flight at the same time, which no filter can arrange.)
//
//	client  CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE, then TIME_WAIT
//	child   LISTEN SYN_RECV ESTABLISHED FIN_WAIT1 CLOSING CLOSE, then TIME_WAIT
func SimultaneousClose(n *Netns, f Family) Outcome {
	n.t.Helper()
	c := establish(n, f)
	c.client.DropIncoming()
	c.child.DropIncoming()
	c.client.Shutdown(unix.SHUT_WR)
	c.child.Shutdown(unix.SHUT_WR)
	c.client.Await(FinWait1)
	c.child.Await(FinWait1)
	c.child.AllowIncoming()
	c.child.Await(Closing)
	c.client.AllowIncoming()
	c.client.Await(Close)
	c.child.Await(Close)
	c.out.Client.Left, c.out.Child.Left = TimeWait, TimeWait
	return c.finish(closesFirst, accepted.Then(FinWait1, Closing, Close))
}

// HalfClose has the client end its side only: the server goes on sending.
//
//	client  CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE, then TIME_WAIT
//	child   LISTEN SYN_RECV ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE
func HalfClose(n *Netns, f Family) Outcome {
	n.t.Helper()
	c := establish(n, f)
	c.client.Shutdown(unix.SHUT_WR)
	c.child.ReadEOF()
	c.child.Write("still here")
	if got := c.client.Read(); got != "still here" {
		n.t.Fatalf("read after shutdown: got %q", got)
	}
	c.client.Await(FinWait2)
	c.child.Close()
	c.client.ReadEOF()
	c.client.Await(Close)
	c.out.Client.Left = TimeWait
	return c.finish(closesFirst, closesLast)
}

// CloseInFinWait1 is shutdown and then close before the server has heard of
// it. The close emits FIN_WAIT1 to FIN_WAIT1.
//
//	client  CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT1 FIN_WAIT2 CLOSE, then TIME_WAIT
//	child   LISTEN SYN_RECV ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE
func CloseInFinWait1(n *Netns, f Family) Outcome {
	n.t.Helper()
	c := establish(n, f)
	c.child.DropIncoming()
	c.client.Shutdown(unix.SHUT_WR)
	c.client.Await(FinWait1)
	c.client.Close()
	c.child.AllowIncoming()
	c.child.ReadEOF()
	c.child.Close()
	c.out.Client.Left = TimeWait
	return c.finish(connected.Then(FinWait1, FinWait1, FinWait2, Close), closesLast)
}

// CloseInFinWait2 is shutdown first and close later, the server still being
// busy. The close emits FIN_WAIT2 to FIN_WAIT2. The timewait socket begins in
// substate FIN_WAIT2 and is in TIME_WAIT once the server closes.
//
//	client  CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 FIN_WAIT2 CLOSE, then TIME_WAIT
//	child   LISTEN SYN_RECV ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE
func CloseInFinWait2(n *Netns, f Family) Outcome {
	n.t.Helper()
	c := establish(n, f)
	c.client.Shutdown(unix.SHUT_WR)
	c.child.ReadEOF()
	c.client.Await(FinWait2)
	c.client.Close()
	n.awaitLeft(c.out.Client, FinWait2)
	c.child.Close()
	n.awaitLeft(c.out.Client, TimeWait)
	c.out.Client.Left = TimeWait
	return c.finish(connected.Then(FinWait1, FinWait2, FinWait2, Close), closesLast)
}

// OrphanInFinWait2 is a client that closed while the server never does: only
// a timewait socket in substate FIN_WAIT2 remains of it, for tcp_fin_timeout
// seconds. The FIN is lost at first, because an ACK that comes while close
// still holds the socket makes the kernel keep the whole socket instead. The
// server vanishes without a segment, which would change the substate.
//
//	client  CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE, then substate FIN_WAIT2
//	child   LISTEN SYN_RECV ESTABLISHED CLOSE_WAIT CLOSE
func OrphanInFinWait2(n *Netns, f Family) Outcome {
	n.t.Helper()
	c := establish(n, f)
	c.child.DropIncoming()
	c.client.Close()
	c.child.AllowIncoming()
	c.child.ReadEOF()
	n.awaitLeft(c.out.Client, FinWait2)
	c.child.SetsockoptInt(unix.IPPROTO_TCP, unix.TCP_REPAIR, 1)
	c.child.Close()
	c.out.Client.Left = FinWait2
	return c.finish(closesFirst, accepted.Then(CloseWait, Close))
}

// Linger2Negative is a client that wants no FIN_WAIT2 as an orphan: instead
// of a timewait socket the server gets a reset.
//
//	client  CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE
//	child   LISTEN SYN_RECV ESTABLISHED CLOSE_WAIT CLOSE, EPIPE
func Linger2Negative(n *Netns, f Family) Outcome {
	n.t.Helper()
	c := establish(n, f)
	c.client.SetsockoptInt(unix.IPPROTO_TCP, unix.TCP_LINGER2, -1)
	c.client.Close()
	c.child.AwaitError(unix.EPIPE)
	c.out.Child.Err = unix.EPIPE
	return c.finish(closesFirst, accepted.Then(CloseWait, Close))
}

// TimeWaitOverflow is HalfClose with no timewait socket left to have: the events
// are the same. The client is no orphan, since that might be gone before the
// child's FIN, which would then get a reset.
//
//	client  CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE
//	child   LISTEN SYN_RECV ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE
func TimeWaitOverflow(n *Netns, f Family) Outcome {
	n.t.Helper()
	const limit = "net.ipv4.tcp_max_tw_buckets"
	before := n.Sysctl(limit, "0")
	out := HalfClose(n, f)
	n.Sysctl(limit, before)
	out.Client.Left = 0
	return out
}
