package harness

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// Env is a network namespace with actors in it, the tracers of the case, and the times
// at which each process had each socket open. Finish checks all records against these.
type Env struct {
	T           *testing.T
	Netns       *tcplab.Netns
	Captures    []*capture
	Tracer      *Tracer // of the capture that is being checked
	tracedSince Moment
	actors      []*Actor
	Sockets     []*Socket
	steps       []step
	KnownLimits []func(l Record, s *Socket) bool // limits of the tracer that excuse a missing owner; the case that adds one explains it
	Tally       ownerTally

	cgroupDirs []string

	group *olderGroup // of an OlderCase
	ready func()      // an OlderCase calls it when it has its sockets
}

// NewEnv makes a namespace. The tracers come with UseSharedTracers, UseTracer or
// TraceFromHere.
func NewEnv(t *testing.T) *Env {
	t.Helper()
	env := &Env{T: t, Netns: tcplab.NewNetns(t), tracedSince: -1}
	// Orphaned processes become children of the test, which can then reap them.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatalf("prctl PR_SET_CHILD_SUBREAPER: %v", err)
	}
	t.Cleanup(env.cleanUp)
	return env
}

// Run runs a case with the shared tracers, and checks all its records.
func Run(t *testing.T, body func(env *Env)) *Env {
	t.Helper()
	var env *Env
	untilShown(t, func() string {
		env = NewEnv(t)
		watch := newWatch(t, env.Netns)
		env.UseSharedTracers()
		body(env)
		env.endSockets()
		return watch.hidden()
	})
	env.checkAll()
	return env
}

// UseSharedTracers traces the case with the shared tracers. The test must not have
// opened a socket before.
func (env *Env) UseSharedTracers() {
	env.T.Helper()
	if len(env.Sockets) > 0 {
		env.T.Fatal("the test is wrong: it opened a socket before UseSharedTracers")
	}
	for _, tr := range SharedTracers(env.T) {
		env.Captures = append(env.Captures, &capture{tr, true, tr.size()})
	}
	env.tracedSince = Now()
}

// UseTracer traces this case with a tracer that has just been started, which other cases
// may use too. One tracer is enough: the cases with shared tracers already run with and
// without the accept hook.
func (env *Env) UseTracer(tr *Tracer) {
	env.T.Helper()
	env.Captures = append(env.Captures, &capture{Tracer: tr, shared: true})
	env.tracedSince = Now()
	for _, s := range env.Sockets {
		s.BeforeTracing = true
	}
}

// cleanUp ends all processes and removes the cgroups.
func (env *Env) cleanUp() {
	defer func() {
		for _, dir := range env.cgroupDirs {
			if err := os.Remove(dir); err != nil {
				env.T.Error(err)
			}
		}
	}()
	var living []*Actor
	for _, a := range env.actors {
		if a.died == 0 {
			_ = unix.Kill(a.PID, unix.SIGKILL)
			living = append(living, a)
		}
		for _, th := range a.Threads {
			unix.Close(th.orders)
			unix.Close(th.answers)
		}
	}
	for _, a := range living { // parents first: then the test is the parent of their children
		if a.parent == nil {
			a.reap()
		} else {
			_, _ = unix.Wait4(a.PID, nil, 0, nil)
		}
	}
}

func (env *Env) must(a *Actor, call uintptr, err error) {
	env.T.Helper()
	if err != nil {
		env.T.Fatalf("%s (%d): system call %d: %v", a.Name(), a.PID, call, err)
	}
}
