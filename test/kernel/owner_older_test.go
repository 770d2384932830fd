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

// scanCases are sockets that the scan finds, and what happens to them after it.
func scanCases() []harness.OlderCase {
	cases := []harness.OlderCase{
		{Name: "listener passed on", Body: listenerPassedOn},
		{Name: "prefork server", Body: preforkedBefore},
		{Name: "orphan", Body: orphanFromBefore},
		{Name: "unaccepted child", Body: unacceptedFromBefore},
		{Name: "processes with other threads", Body: leaderlessFromBefore},
	}
	for _, first := range []bool{true, false} {
		cases = append(cases,
			harness.OlderCase{Name: fmt.Sprintf("open at the start, client first %v", first), Body: func(env *harness.Env) { hadAtTheStart(env, first) }},
			harness.OlderCase{Name: fmt.Sprintf("passed on after the scan, receiver operates %v", first), Body: func(env *harness.Env) { foundAndPassedOn(env, first) }},
			harness.OlderCase{Name: fmt.Sprintf("open in several processes, parent closes first %v", first), Body: func(env *harness.Env) { severalAtTheStart(env, first) }})
	}
	return cases
}

// hadAtTheStart: the scan names the process that has a client, a listener or an
// accepted connection open when the tracer starts (pid_source scan).
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
	env.CheckScanFoundOwner(lines)
}

// foundAndPassedOn: the process that the scan found may be named until it closes the
// socket.
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

// listenerPassedOn: the opener of an older listener, which passed it on, is not named
// for connections that come later.
func listenerPassedOn(env *harness.Env) {
	opener, client := env.ServerAndClient()
	receiver := env.StartActor("receiver", 1)
	listener := opener.Listen(harness.At(7000))
	before := client.Dial(harness.At(7000)) // waits in the queue before the tracer starts
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

// severalAtTheStart: each of several processes may be named while it has the socket
// open.
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

// preforkedBefore: with an older prefork server, no worker is named for another's
// connection.
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

// orphanFromBefore: no process is named for an orphan from before the start.
func orphanFromBefore(env *harness.Env) {
	parent, peer := env.StartActor("parent", 1), env.StartActor("peer", 1)
	dying := parent.Fork("the-dead", 0, 0)
	_, toOrphan := harness.OrphanOf(env, dying, peer)
	env.TraceFromHere()
	peer.AllowIncoming(toOrphan)
	peer.AwaitState(toOrphan, tcplab.CloseWait)
	env.Finish()
}

// unacceptedFromBefore: a child waits in the queue at the start and is never accepted.
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

// leaderlessFromBefore: a process whose leader has exited, and one whose thread has
// another name.
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
