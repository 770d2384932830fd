package tcplab

import "golang.org/x/sys/unix"

// Each scenario makes one connection, closes it and returns its sockets. The comments
// list the states of each socket as the tracepoint shows them. A listener has CLOSE
// LISTEN CLOSE unless stated; "then TIME_WAIT" is the timewait socket, which the
// tracepoint does not show.

// ClientCloses is an orderly close by the client.
//
//	client  CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE, then TIME_WAIT
//	child   LISTEN SYN_RECV ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE
func ClientCloses(n *Netns, f Family) Outcome {
	n.t.Helper()
	c := establish(n, f)
	c.client.Close()
	c.child.ReadEOF()
	c.child.Close()
	c.out.Client.Substate = TimeWait
	return c.finish(closesFirst, closesLast)
}

// ServerCloses is an orderly close by the server, which gets the TIME_WAIT.
//
//	client  CLOSE SYN_SENT ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE
//	child   LISTEN SYN_RECV ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE, then TIME_WAIT
func ServerCloses(n *Netns, f Family) Outcome {
	n.t.Helper()
	c := establish(n, f)
	c.child.Close()
	c.client.ReadEOF()
	c.client.Close()
	c.out.Child.Substate = TimeWait
	return c.finish(connected.Then(CloseWait, LastAck, Close), accepted.Then(FinWait1, FinWait2, Close))
}

// SimultaneousClose has both sides send a FIN before either has seen the other's. Then
// the child receives the client's retransmitted FIN, and the client receives the ACK
// and the child's FIN at once. (CLOSING on both sides needs two FINs in flight at the
// same time, which socket filters cannot arrange.)
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
	c.out.Client.Substate, c.out.Child.Substate = TimeWait, TimeWait
	return c.finish(closesFirst, accepted.Then(FinWait1, Closing, Close))
}

// HalfClose has the client shut down its sending side only, and the server send data
// after that.
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
	c.out.Client.Substate = TimeWait
	return c.finish(closesFirst, closesLast)
}

// CloseInFinWait1 is shutdown() and then close() before the server has received the
// FIN. The close emits FIN_WAIT1 to FIN_WAIT1.
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
	c.out.Client.Substate = TimeWait
	return c.finish(connected.Then(FinWait1, FinWait1, FinWait2, Close), closesLast)
}

// CloseInFinWait2 is shutdown() and later close(), before the server closes. The close
// emits FIN_WAIT2 to FIN_WAIT2. The timewait socket begins in substate FIN_WAIT2, and
// is in TIME_WAIT when the server has closed.
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
	n.awaitTimewait(c.out.Client, FinWait2)
	c.child.Close()
	n.awaitTimewait(c.out.Client, TimeWait)
	c.out.Client.Substate = TimeWait
	return c.finish(connected.Then(FinWait1, FinWait2, FinWait2, Close), closesLast)
}

// OrphanInFinWait2 is a client that closes while the server never does. The client
// becomes a timewait socket in substate FIN_WAIT2, for tcp_fin_timeout seconds.
// The first FIN is dropped: with an ACK that comes while close() has the lock, the
// kernel would keep the full socket. The server ends without a segment, because a
// segment would change the substate.
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
	n.awaitTimewait(c.out.Client, FinWait2)
	c.child.SetsockoptInt(unix.IPPROTO_TCP, unix.TCP_REPAIR, 1)
	c.child.Close()
	c.out.Client.Substate = FinWait2
	return c.finish(closesFirst, accepted.Then(CloseWait, Close))
}

// Linger2Negative is a client with TCP_LINGER2 < 0: instead of a FIN_WAIT2 orphan and a
// timewait socket, the server gets a reset.
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

// TimeWaitOverflow is HalfClose with tcp_max_tw_buckets at 0: the events are equal, but
// no timewait socket is made. The client is not an orphan, because an orphan might be
// freed before the child's FIN, which would then get a reset.
//
//	client  CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE
//	child   LISTEN SYN_RECV ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE
func TimeWaitOverflow(n *Netns, f Family) Outcome {
	n.t.Helper()
	const limit = "net.ipv4.tcp_max_tw_buckets"
	before := n.Sysctl(limit, "0")
	out := HalfClose(n, f)
	n.Sysctl(limit, before)
	out.Client.Substate = 0
	return out
}
