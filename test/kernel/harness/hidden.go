package harness

import (
	"fmt"
	"sync"
	"testing"

	"github.com/tcpshift/tcpshift/test/observer"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// witnesses count the transitions for which the kernel calls a program, in all namespaces, until
// the process ends. Only kernels that hide some need them: see docs/accuracy.md.
var witnesses = sync.OnceValues(func() (*observer.Observers, error) { return observer.Attach(observer.Everywhere) })

// A watch finds out whether the kernel hid a transition from programs, in one namespace and since
// newWatch.
type watch struct {
	t         testing.TB
	netns     *tcplab.Netns
	witnesses *observer.Observers // nil: this kernel hides nothing
	before    observer.Calls
}

func newWatch(t testing.TB, n *tcplab.Netns) watch {
	t.Helper()
	if !tcplab.HidesEvents() {
		return watch{}
	}
	all, err := witnesses()
	if err != nil {
		t.Fatalf("count the calls of the tracepoint: %v", err)
	}
	return watch{t, n, all, all.CallsIn(t, n.Inode())}
}

// hidden returns a message if the kernel called no program for a transition, else "". All sockets
// of the namespace must have ended. No tracer can have seen such a transition, so the case says
// nothing about the tracer, and has to run again.
func (w watch) hidden() string {
	if w.witnesses == nil {
		return ""
	}
	w.t.Helper()
	calls := w.witnesses.CallsIn(w.t, w.netns.Inode()).Since(w.before)
	if state := calls.Unbalanced(); state != "" {
		return fmt.Sprintf("the kernel called no program for a transition from or to %s: %v", state, calls.Counts)
	}
	return ""
}

// untilShown plays a case, at most tcplab.Attempts times, until the kernel hides no part of it. play
// returns what hidden returned. The caller checks the records of the last time in any case.
func untilShown(t testing.TB, play func() (hidden string)) {
	t.Helper()
	for range tcplab.Attempts() {
		hidden := play()
		if hidden == "" {
			return
		}
		t.Logf("%s", hidden)
	}
}
