package harness

import (
	"errors"
	"slices"
	"testing"

	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// running is the tracers that cases share, because loading a tracer takes longer than
// most cases. A case uses SharedTracers, NewStormEnv, or a tracer of its own after
// StopSharedTracers. Each of these stops the tracers of the other kind, so results do
// not depend on the order of tests; an order that often changes between the kinds loads
// more tracers.
var running struct {
	allNetns []*Tracer

	storm        *Tracer
	stormWithout []string
}

// Variants returns, for each tracer that a case needs, the features it runs without.
// If the kernel has the accept hook, a second tracer runs without it, as on a host under
// lockdown. The last tracer runs without the read hook as well, so that each case is
// checked with each way to know the process that accepts.
func Variants() [][]string {
	variants := [][]string{nil}
	var off []string
	for _, f := range kernel.Features() {
		if (f.Name == probe.AcceptHook || f.Name == probe.ReadHook) && f.Err == nil && !slices.Contains(switchedOff(), f.Name) {
			off = append(slices.Clone(off), f.Name)
			variants = append(variants, off)
		}
	}
	return variants
}

// SharedTracers returns one tracer of all namespaces for each of Variants. It starts
// them if they do not run.
func SharedTracers(t testing.TB) []*Tracer {
	t.Helper()
	tcplab.RequireRoot(t)
	if len(running.allNetns) > 0 {
		return running.allNetns
	}
	if err := stopStormTracer(); err != nil {
		t.Error(err)
	}
	for _, without := range Variants() {
		tr, err := launch(Options{Options: probe.Options{Ends: true, Without: without}})
		if err != nil {
			t.Fatal(err)
		}
		running.allNetns = append(running.allNetns, tr)
	}
	return running.allNetns
}

// sharedStormTracer returns the tracer that storms between actors share, one storm
// after the other. It runs without the given features; its ring has room for all
// transitions of one storm.
func sharedStormTracer(t testing.TB, without []string, bufferSize int) *Tracer {
	t.Helper()
	if err := stopNetnsTracers(); err != nil {
		t.Error(err)
	}
	if running.storm != nil && slices.Equal(without, running.stormWithout) {
		return running.storm
	}
	if err := stopStormTracer(); err != nil {
		t.Error(err)
	}
	o := probe.Options{Ends: true, Without: without}
	o.BufferSize = bufferSize
	tr, err := launch(Options{Options: o})
	if err != nil {
		t.Fatal(err)
	}
	running.storm, running.stormWithout = tr, without
	return tr
}

// StopSharedTracers stops the tracers that cases share. A test calls it before it
// starts a tracer of its own for a storm, which other tracers would slow down, and
// TestMain after the last test. The error names the check of a stream that failed.
func StopSharedTracers() error {
	return errors.Join(stopNetnsTracers(), stopStormTracer())
}

func stopNetnsTracers() error {
	stopped := running.allNetns
	running.allNetns = nil
	return stopTracers(stopped...)
}

func stopStormTracer() error {
	if running.storm == nil {
		return nil
	}
	stopped := running.storm
	running.storm = nil
	return stopTracers(stopped)
}

func stopTracers(tracers ...*Tracer) error {
	var errs []error
	for _, tr := range tracers {
		tr.cancel()
		errs = append(errs, <-tr.done, tr.checkStream(), tr.Probe.Close(), tr.out.Close())
	}
	return errors.Join(errs...)
}

// capture is the part of a tracer's output that belongs to one case.
type capture struct {
	Tracer *Tracer
	shared bool
	from   int // offset in the output of a shared tracer where the case begins
}

// records returns all records of the namespace. A tracer that is not shared ends.
func (c *capture) records(n *tcplab.Netns) ([]Record, error) {
	if !c.shared {
		return c.Tracer.end()
	}
	if err := c.Tracer.awaitFence(n, c.from); err != nil {
		return nil, err
	}
	lines, err := parseRecords(ofNamespaces(c.Tracer.since(c.from), n.Inode()))
	return slices.DeleteFunc(lines, func(l Record) bool { return l.PeerPort == FencePort }), err
}
