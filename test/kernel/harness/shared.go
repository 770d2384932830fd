package harness

import (
	"errors"
	"slices"
	"testing"

	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// Most cases need a tracer that was there before them and nothing else of it. They
// have one in common, which traces every namespace, and, where the kernel gives the
// accept hook, a second one without, as on a locked-down host: what happens once is
// told twice, and held against the truth twice.
var shared []*Tracer

// Variants are the features that the tracers of a case do without.
func Variants() [][]string {
	for _, f := range kernel.Features() {
		if f.Name == probe.AcceptHook && f.Err == nil && !slices.Contains(switchedOff(), probe.AcceptHook) {
			return [][]string{nil, {probe.AcceptHook}}
		}
	}
	return [][]string{nil}
}

func SharedTracers(t testing.TB) []*Tracer {
	t.Helper()
	tcplab.RequireRoot(t)
	if len(shared) > 0 {
		return shared
	}
	for _, without := range Variants() {
		tr, err := launch(Options{Options: probe.Options{Ends: true, Without: without}})
		if err != nil {
			t.Fatal(err)
		}
		shared = append(shared, tr)
	}
	return shared
}

// StopShared ends them: before a storm, which they would only slow down, and at
// the end of all tests. Storms are in files called storm_*, which come last.
func StopShared() error {
	retired := shared
	shared = nil
	return stopTracers(retired...)
}

func stopTracers(tracers ...*Tracer) error {
	var errs []error
	for _, tr := range tracers {
		tr.cancel()
		errs = append(errs, <-tr.done, tr.checkFrame(), tr.Probe.Close(), tr.out.Close())
	}
	return errors.Join(errs...)
}

// A watch is one tracer over a case.
type capture struct {
	Tracer *Tracer
	shared bool
	from   int // where in the output of a shared one the case begins
}

// lines are all that the tracer says of the namespace; its own tracer has ended then.
func (c *capture) lines(n *tcplab.Netns) ([]Record, error) {
	if !c.shared {
		return c.Tracer.end()
	}
	if err := c.Tracer.awaitFence(n, c.from); err != nil {
		return nil, err
	}
	lines, err := parseLines(ofNamespaces(c.Tracer.since(c.from), n.Inode()))
	return slices.DeleteFunc(lines, func(l Record) bool { return l.PeerPort == FencePort }), err
}
