package harness

import (
	"sync"
	"testing"

	"github.com/tcpshift/tcpshift/internal/probe"
)

// OlderCase is a case about sockets that are older than the tracer. Its body opens
// the sockets, calls Env.TraceFromHere once, and then uses them.
type OlderCase struct {
	Name string
	Body func(env *Env)
}

// olderGroup starts one tracer for many cases, when all of them have their sockets:
// to start one for each case takes longer than the cases themselves. After that the
// cases run one at a time, because each waits a lot and polls often.
type olderGroup struct {
	turn    sync.Mutex
	pending sync.WaitGroup // cases that do not have their sockets yet
	launch  func() (*Tracer, error)
}

// RunOlderCases runs the cases as subtests with one tracer, and checks its stream.
func RunOlderCases(t *testing.T, cases []OlderCase) {
	t.Helper()
	g := &olderGroup{launch: sync.OnceValues(func() (*Tracer, error) {
		return launch(Options{Options: probe.Options{Ends: true}})
	})}
	g.pending.Add(len(cases))
	// t.Parallel would let no more cases wait than there are processors.
	var running sync.WaitGroup
	for _, c := range cases {
		running.Go(func() { g.run(t, c) })
	}
	running.Wait()
	g.stop(t)
}

func (g *olderGroup) run(t *testing.T, c OlderCase) {
	ready := sync.OnceFunc(g.pending.Done)
	defer ready() // also if the case fails before it is ready, or -run leaves it out
	t.Run(c.Name, func(t *testing.T) {
		g.turn.Lock()
		defer g.turn.Unlock()
		env := NewEnv(t)
		env.group, env.ready = g, ready
		c.Body(env)
	})
}

func (g *olderGroup) stop(t *testing.T) {
	t.Helper()
	tr, err := g.launch()
	if err == nil {
		err = stopTracers(tr)
	}
	if err != nil {
		t.Error(err)
	}
}

// TraceFromHere waits until all cases of the group have their sockets and the tracer
// runs. It is for the body of an OlderCase only.
func (env *Env) TraceFromHere() {
	env.T.Helper()
	g := env.group
	env.ready()
	g.turn.Unlock()
	g.pending.Wait()
	g.turn.Lock()
	tr, err := g.launch()
	if err != nil {
		env.T.Fatal(err)
	}
	env.UseTracer(tr)
}
