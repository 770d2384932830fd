package kernel_test

import (
	"fmt"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// A process that has a socket open when the tracer starts is its owner, until the
// process closes the socket.
func TestOwner_SocketsOlderThanTracer(t *testing.T) {
	harness.RunOlderCases(t, slices.Concat(scanCases(), lastCloserCases(), olderMPTCPCases()))
}

// scanCases are what the scan finds, and what becomes of it.
func scanCases() []harness.OlderCase {
	cases := []harness.OlderCase{
		{Name: "a listener found and passed on is not its opener's", Body: listenerPassedOn},
		{Name: "a prefork server is taken apart by its workers", Body: preforkedBefore},
		{Name: "an orphan is nobody's", Body: orphanFromBefore},
		{Name: "an unaccepted child is its listener's at most", Body: unacceptedFromBefore},
		{Name: "processes are found and not threads", Body: leaderlessFromBefore},
	}
	for _, first := range []bool{true, false} {
		cases = append(cases,
			harness.OlderCase{Name: fmt.Sprintf("who had it is its owner, client first %v", first), Body: func(env *harness.Env) { hadAtTheStart(env, first) }},
			harness.OlderCase{Name: fmt.Sprintf("found and passed on it is not its giver's, receiver operates %v", first), Body: func(env *harness.Env) { foundAndPassedOn(env, first) }},
			harness.OlderCase{Name: fmt.Sprintf("of several only those that still have it, parent leaves %v", first), Body: func(env *harness.Env) { severalAtTheStart(env, first) }})
	}
	return cases
}

// A client, a listener and an accepted connection that were there before the tracer:
// the process that had them at its start is known by the scan (pid_source scan).
func hadAtTheStart(env *harness.Env, clientFirst bool) {
	server, client := env.ServerAndClient()
	listener := server.Listen(harness.At(7000))
	c := client.Dial(harness.At(7000))
	s := server.Accept(listener)
	env.TraceFromHere()
	harness.CloseInOrder(client, c, server, s, clientFirst)
	c = client.Dial(harness.At(7000))
	harness.CloseInOrder(client, c, server, server.Accept(listener), clientFirst)
	lines := env.Finish()
	env.WantScan(lines)
}

// Found by the scan and then passed on: the one that was found is right until it has
// closed its own, and then no more.
func foundAndPassedOn(env *harness.Env, operates bool) {
	giver, peer := env.StartActor("giver", 1), env.StartActor("peer", 1)
	receiver := env.StartActor("receiver", 1)
	g := harness.ConnectBoth(env, giver, peer)
	env.TraceFromHere()
	for _, s := range []*harness.Socket{g.Client, g.Child} {
		giver.PassFD(s, receiver, true)
		if operates {
			receiver.Shutdown(s, unix.SHUT_WR)
		}
	}
	peer.Close(g.ClientPeer, g.ChildPeer)
	for _, s := range []*harness.Socket{g.Client, g.Child} {
		receiver.AwaitState(s, tcplab.CloseWait, tcplab.Close)
		receiver.Close(s)
	}
	env.Finish()
}

// A listener from before, found and passed on: connections that come then are not
// its opener's.
func listenerPassedOn(env *harness.Env) {
	opener, client := env.ServerAndClient()
	receiver := env.StartActor("receiver", 1)
	listener := opener.Listen(harness.At(7000))
	before := client.Dial(harness.At(7000)) // waits in the queue from before the tracer
	env.TraceFromHere()
	opener.PassFD(listener, receiver, true)
	after := client.Dial(harness.At(7000))
	for _, c := range []*harness.Socket{before, after} {
		s := receiver.Accept(listener)
		s.BeforeTracing = c == before
		harness.CloseInOrder(client, c, receiver, s, c == after)
	}
	env.Finish()
}

// Several processes had it at the start: any of them is right while it has it.
func severalAtTheStart(env *harness.Env, parentLeaves bool) {
	parent, peer := env.StartActor("parent", 1), env.StartActor("peer", 1)
	g := harness.ConnectBoth(env, parent, peer)
	child := parent.Fork("child", 0, 0)
	env.TraceFromHere()
	first, second := parent, child
	if !parentLeaves {
		first, second = child, parent
	}
	first.Close(g.Client, g.Child)
	peer.Close(g.ClientPeer, g.ChildPeer)
	for _, s := range []*harness.Socket{g.Client, g.Child} {
		second.AwaitState(s, tcplab.CloseWait)
	}
	env.Finish()
}

// A prefork server that was there before: its workers' connections are not told as
// another worker's.
func preforkedBefore(env *harness.Env) {
	parent, client := env.ServerAndClient()
	listener := parent.Listen(harness.At(7000))
	workers := parent.Workers(4)
	var clients, children []*harness.Socket
	for i := range 4 {
		clients = append(clients, client.Dial(harness.At(7000)))
		children = append(children, workers[i].Accept(listener))
	}
	env.TraceFromHere()
	for i := range 4 {
		clients = append(clients, client.Dial(harness.At(7000)))
		children = append(children, workers[i].Accept(listener))
	}
	for i, c := range clients {
		harness.CloseInOrder(client, c, workers[i%4], children[i], i%2 == 0)
	}
	env.Finish()
}

// An orphan from before the start was somebody's whom nobody knows any more.
func orphanFromBefore(env *harness.Env) {
	parent, peer := env.StartActor("parent", 1), env.StartActor("peer", 1)
	dying := parent.Fork("the-dead", 0, 0)
	_, toOrphan := harness.OrphanOf(env, dying, peer)
	env.TraceFromHere()
	peer.AllowIncoming(toOrphan)
	peer.AwaitState(toOrphan, tcplab.CloseWait)
	env.Finish()
}

// A child that waits unaccepted at the start, and is never accepted.
func unacceptedFromBefore(env *harness.Env) {
	server, client := env.ServerAndClient()
	listener := server.Listen(harness.At(7000))
	c := client.Dial(harness.At(7000))
	env.NoteUnaccepted(listener, c)
	env.TraceFromHere()
	client.Close(c)
	server.Close(listener)
	env.Finish()
}

// A process that has lost its leader, and one whose name and thread's name differ.
func leaderlessFromBefore(env *harness.Env) {
	leaderless, peer := env.StartActor("leaderless", 2), env.StartActor("peer", 2)
	leaderless.Threads[1].Rename("not-the-leader")
	peer.Threads[1].Rename("peer-thread")
	g := harness.ConnectBoth(env, leaderless, peer)
	leaderless.ExitThread()
	env.TraceFromHere()
	peer.Threads[1].Close(g.ClientPeer, g.ChildPeer)
	for _, s := range []*harness.Socket{g.Client, g.Child} {
		leaderless.AwaitState(s, tcplab.CloseWait)
	}
	env.Finish()
}
