package harness

import (
	"sync"
	"testing"

	"github.com/tcpshift/tcpshift/internal/probe"
)

// An olderCase is about sockets that are older than the tracer. Its story calls
// w.trace once, when it has the sockets that it needs.
type OlderCase struct {
	Name string
	Body func(env *Env)
}

// A gathering starts one tracer for many cases, when all of them have their sockets:
// to start one for each takes longer than all else that they do. The cases go on one
// at a time: each waits a lot, and looks often.
type olderGroup struct {
	Turn    sync.Mutex
	Pending sync.WaitGroup // those that are not ready yet
	launch  func() (*Tracer, error)
}

func NewOlderGroup(size int) *olderGroup {
	g := &olderGroup{launch: sync.OnceValues(func() (*Tracer, error) {
		return launch(Options{Options: probe.Options{Ends: true}})
	})}
	g.Pending.Add(size)
	return g
}

// End is called when no case uses the tracer any more; it holds what is true of
// every stream.
func (g *olderGroup) End(t *testing.T) {
	t.Helper()
	tr, err := g.launch()
	if err == nil {
		err = stopTracers(tr)
	}
	if err != nil {
		t.Error(err)
	}
}

// TraceFromHere waits for the other cases and for the tracer.
func (env *Env) TraceFromHere() {
	env.T.Helper()
	g := env.Group
	env.Arrive()
	g.Turn.Unlock()
	g.Pending.Wait()
	g.Turn.Lock()
	tr, err := g.launch()
	if err != nil {
		env.T.Fatal(err)
	}
	env.UseTracer(tr)
}
