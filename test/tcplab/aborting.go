package tcplab

import "golang.org/x/sys/unix"

// ResetByLinger0 is a client that closes with SO_LINGER 0: it sends a reset.
//
//	client  CLOSE SYN_SENT ESTABLISHED CLOSE
//	child   LISTEN SYN_RECV ESTABLISHED CLOSE, ECONNRESET
func ResetByLinger0(n *Netns, f Family) Outcome {
	n.t.Helper()
	c := establish(n, f)
	c.client.SetLinger(0)
	c.client.Close()
	return c.childReset()
}

// Disconnect is a client that drops its connection with connect AF_UNSPEC and
// keeps the socket.
//
//	client  CLOSE SYN_SENT ESTABLISHED CLOSE
//	child   LISTEN SYN_RECV ESTABLISHED CLOSE, ECONNRESET
func Disconnect(n *Netns, f Family) Outcome {
	n.t.Helper()
	c := establish(n, f)
	c.client.Disconnect()
	c.client.Await(Close)
	return c.childReset()
}

// UnreadDataClose is a client that closes with unread data: the kernel sends a reset.
//
//	client  CLOSE SYN_SENT ESTABLISHED CLOSE
//	child   LISTEN SYN_RECV ESTABLISHED CLOSE, ECONNRESET
func UnreadDataClose(n *Netns, f Family) Outcome {
	n.t.Helper()
	c := establish(n, f)
	c.child.Write("never read")
	c.client.AwaitReadable()
	c.client.Close()
	return c.childReset()
}

func (c *conversation) childReset() Outcome {
	c.n.t.Helper()
	c.child.AwaitError(unix.ECONNRESET)
	c.out.Child.Err = unix.ECONNRESET
	return c.finish(connected.Then(Close), accepted.Then(Close))
}

// ResetReceived is a client whose server closes with SO_LINGER 0.
//
//	client  CLOSE SYN_SENT ESTABLISHED CLOSE, ECONNRESET
//	child   LISTEN SYN_RECV ESTABLISHED CLOSE
func ResetReceived(n *Netns, f Family) Outcome {
	n.t.Helper()
	c := establish(n, f)
	c.child.SetLinger(0)
	c.child.Close()
	return c.clientReset(accepted.Then(Close))
}

func (c *conversation) clientReset(child Path) Outcome {
	c.n.t.Helper()
	c.client.AwaitError(unix.ECONNRESET)
	c.out.Client.Err = unix.ECONNRESET
	return c.finish(connected.Then(Close), child)
}

// ResetInCloseWait is a client that shuts down its sending side and resets later. In
// CLOSE_WAIT the kernel sets EPIPE for a reset.
//
//	client  CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE
//	child   LISTEN SYN_RECV ESTABLISHED CLOSE_WAIT CLOSE, EPIPE
func ResetInCloseWait(n *Netns, f Family) Outcome {
	n.t.Helper()
	c := establish(n, f)
	c.client.Shutdown(unix.SHUT_WR)
	c.child.ReadEOF()
	c.client.Await(FinWait2)
	c.client.SetLinger(0)
	c.client.Close()
	c.child.AwaitError(unix.EPIPE)
	c.out.Child.Err = unix.EPIPE
	return c.finish(closesFirst, accepted.Then(CloseWait, Close))
}

// UnacceptedChild is a listener that closes with a connection in its queue.
//
//	client    CLOSE SYN_SENT ESTABLISHED CLOSE, ECONNRESET
//	listener  CLOSE LISTEN CLOSE
//	child     LISTEN SYN_RECV ESTABLISHED CLOSE, its cookie unknown
func UnacceptedChild(n *Netns, f Family) Outcome {
	n.t.Helper()
	c := listen(n, f)
	c.client.Connect(c.target(f))
	c.listener.AwaitReadable()
	c.out.Client = endpoint(c.client)
	c.out.Child = &Endpoint{Local: c.out.Client.Remote, Remote: c.out.Client.Local}
	c.listener.Close()
	return c.clientReset(accepted.Then(Close))
}

// EstablishedTimeout is a client whose data is never acknowledged. The server does not
// see the client's end, and gets a reset for its own FIN.
//
//	client  CLOSE SYN_SENT ESTABLISHED CLOSE, ETIMEDOUT
//	child   LISTEN SYN_RECV ESTABLISHED FIN_WAIT1 CLOSE, ECONNRESET
func EstablishedTimeout(n *Netns, f Family) Outcome {
	n.t.Helper()
	c := establish(n, f)
	c.child.DropIncoming()
	c.client.SetsockoptInt(unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 1) // milliseconds; the effect is two retransmissions
	c.client.Write("lost")
	c.client.AwaitError(unix.ETIMEDOUT)
	c.out.Client.Err = unix.ETIMEDOUT
	c.child.AllowIncoming()
	c.child.Shutdown(unix.SHUT_WR)
	c.child.AwaitError(unix.ECONNRESET)
	c.out.Child.Err = unix.ECONNRESET
	return c.finish(connected.Then(Close), accepted.Then(FinWait1, Close))
}
