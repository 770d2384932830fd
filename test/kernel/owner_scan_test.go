package kernel_test

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// scanCases are what the scan finds, and what becomes of it.
func scanCases() []olderCase {
	cases := []olderCase{
		{"a listener found and passed on is not its opener's", listenerPassedOn},
		{"a prefork server is taken apart by its workers", preforkedBefore},
		{"an orphan is nobody's", orphanFromBefore},
		{"an unaccepted child is its listener's at most", unacceptedFromBefore},
		{"processes are found and not threads", leaderlessFromBefore},
	}
	for _, first := range []bool{true, false} {
		cases = append(cases,
			olderCase{fmt.Sprintf("who had it is its owner, client first %v", first), func(w *world) { hadAtTheStart(w, first) }},
			olderCase{fmt.Sprintf("found and passed on it is not its giver's, receiver operates %v", first), func(w *world) { foundAndPassedOn(w, first) }},
			olderCase{fmt.Sprintf("of several only those that still have it, parent leaves %v", first), func(w *world) { severalAtTheStart(w, first) }})
	}
	return cases
}

// A client, a listener and an accepted connection that were there before the tracer:
// the process that had them at its start is known by the scan (pid_source scan).
func hadAtTheStart(w *world, clientFirst bool) {
	server, client := w.pair()
	listener := server.listen(at(7000))
	c := client.dial(at(7000))
	s := server.accept(listener)
	w.trace()
	inOrder(client, c, server, s, clientFirst)
	c = client.dial(at(7000))
	inOrder(client, c, server, server.accept(listener), clientFirst)
	lines := w.finish()
	w.wantScan(lines)
}

// wantScan makes sure that there was something to find.
func (w *world) wantScan(lines []line) {
	w.t.Helper()
	for _, l := range lines {
		if l.Type == "transition" && l.Source == "scan" {
			return
		}
	}
	if w.has("socket_scan") {
		w.t.Error("no transition with pid_source scan")
	}
}

// Found by the scan and then passed on: the one that was found is right until it has
// closed its own, and then no more.
func foundAndPassedOn(w *world, operates bool) {
	giver, peer := w.startActor("giver", 1), w.startActor("peer", 1)
	receiver := w.startActor("receiver", 1)
	g := connectBoth(w, giver, peer)
	w.trace()
	for _, s := range []*sock{g.client, g.child} {
		giver.pass(s, receiver, true)
		if operates {
			receiver.shutdown(s, unix.SHUT_WR)
		}
	}
	peer.close(g.toOther, g.toChild)
	for _, s := range []*sock{g.client, g.child} {
		receiver.awaitState(s, tcplab.CloseWait, tcplab.Close)
		receiver.close(s)
	}
	w.finish()
}

// A listener from before, found and passed on: connections that come then are not
// its opener's.
func listenerPassedOn(w *world) {
	opener, client := w.pair()
	receiver := w.startActor("receiver", 1)
	listener := opener.listen(at(7000))
	before := client.dial(at(7000)) // waits in the queue from before the tracer
	w.trace()
	opener.pass(listener, receiver, true)
	after := client.dial(at(7000))
	for _, c := range []*sock{before, after} {
		s := receiver.accept(listener)
		s.beforeTracing = c == before
		inOrder(client, c, receiver, s, c == after)
	}
	w.finish()
}

// Several processes had it at the start: any of them is right while it has it.
func severalAtTheStart(w *world, parentLeaves bool) {
	parent, peer := w.startActor("parent", 1), w.startActor("peer", 1)
	g := connectBoth(w, parent, peer)
	child := parent.fork("child", 0, 0)
	w.trace()
	first, second := parent, child
	if !parentLeaves {
		first, second = child, parent
	}
	first.close(g.client, g.child)
	peer.close(g.toOther, g.toChild)
	for _, s := range []*sock{g.client, g.child} {
		second.awaitState(s, tcplab.CloseWait)
	}
	w.finish()
}

// A prefork server that was there before: its workers' connections are not told as
// another worker's.
func preforkedBefore(w *world) {
	parent, client := w.pair()
	listener := parent.listen(at(7000))
	workers := parent.workers(4)
	var clients, children []*sock
	for i := range 4 {
		clients = append(clients, client.dial(at(7000)))
		children = append(children, workers[i].accept(listener))
	}
	w.trace()
	for i := range 4 {
		clients = append(clients, client.dial(at(7000)))
		children = append(children, workers[i].accept(listener))
	}
	for i, c := range clients {
		inOrder(client, c, workers[i%4], children[i], i%2 == 0)
	}
	w.finish()
}

// An orphan from before the start was somebody's whom nobody knows any more.
func orphanFromBefore(w *world) {
	parent, peer := w.startActor("parent", 1), w.startActor("peer", 1)
	dying := parent.fork("the-dead", 0, 0)
	_, toOrphan := orphanOf(w, dying, peer)
	w.trace()
	peer.hear(toOrphan)
	peer.awaitState(toOrphan, tcplab.CloseWait)
	w.finish()
}

// A child that waits unaccepted at the start, and is never accepted.
func unacceptedFromBefore(w *world) {
	server, client := w.pair()
	listener := server.listen(at(7000))
	c := client.dial(at(7000))
	w.unaccepted(listener, c)
	w.trace()
	client.close(c)
	server.close(listener)
	w.finish()
}

// A process that has lost its leader, and one whose name and thread's name differ.
func leaderlessFromBefore(w *world) {
	leaderless, peer := w.startActor("leaderless", 2), w.startActor("peer", 2)
	leaderless.threads[1].rename("not-the-leader")
	peer.threads[1].rename("peer-thread")
	g := connectBoth(w, leaderless, peer)
	leaderless.exitThread()
	w.trace()
	peer.threads[1].close(g.toOther, g.toChild)
	for _, s := range []*sock{g.client, g.child} {
		leaderless.awaitState(s, tcplab.CloseWait)
	}
	w.finish()
}
