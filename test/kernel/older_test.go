package kernel_test

import (
	"slices"
	"sync"
	"testing"

	"github.com/tcpshift/tcpshift/internal/probe"
)

// An olderCase is about sockets that are older than the tracer. Its story calls
// w.trace once, when it has the sockets that it needs.
type olderCase struct {
	name  string
	story func(w *world)
}

// A gathering starts one tracer for many cases, when all of them have their sockets:
// to start one for each takes longer than all else that they do. The cases go on one
// at a time: each waits a lot, and looks often.
type gathering struct {
	turn   sync.Mutex
	coming sync.WaitGroup // those that are not ready yet
	launch func() (*tracer, error)
}

func newGathering(size int) *gathering {
	g := &gathering{launch: sync.OnceValues(func() (*tracer, error) {
		return launch(options{Options: probe.Options{Ends: true}})
	})}
	g.coming.Add(size)
	return g
}

// end is called when no case uses the tracer any more; it holds what is true of
// every stream.
func (g *gathering) end(t *testing.T) {
	t.Helper()
	tr, err := g.launch()
	if err == nil {
		err = retire(tr)
	}
	if err != nil {
		t.Error(err)
	}
}

// trace waits for the other cases and for the tracer.
func (w *world) trace() {
	w.t.Helper()
	g := w.gathering
	w.arrive()
	g.turn.Unlock()
	g.coming.Wait()
	g.turn.Lock()
	tr, err := g.launch()
	if err != nil {
		w.t.Fatal(err)
	}
	w.watchBy(tr)
}

// Who had a socket open at the start is its owner, until it has left it.
func TestOwner_SocketsOlderThanTracer(t *testing.T) {
	cases := slices.Concat(scanCases(), lastCloserCases(), olderMPTCPCases())
	g := newGathering(len(cases))
	var together sync.WaitGroup // t.Parallel would let no more go ahead than there are processors
	for _, c := range cases {
		together.Go(func() {
			arrive := sync.OnceFunc(g.coming.Done)
			defer arrive() // also if it has failed before, or is not to run at all
			t.Run(c.name, func(t *testing.T) {
				g.turn.Lock()
				defer g.turn.Unlock()
				w := newWorld(t)
				w.gathering, w.arrive = g, arrive
				c.story(w)
			})
		})
	}
	together.Wait()
	g.end(t)
}
