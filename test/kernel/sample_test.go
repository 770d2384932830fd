package kernel_test

import (
	"maps"
	"slices"
	"strconv"
	"testing"

	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/selection"
	"github.com/tcpshift/tcpshift/internal/tcp"
	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// A tracer with a sample emits exactly the events of the sockets that package selection chooses, up to the end of a
// TIME_WAIT and a late reset. It counts the others.
func TestSample_AsSelection(t *testing.T) {
	harness.RequireFeature(t, probe.SocketCookie)
	const sample = 3
	n := tcplab.NewNetns(t)
	start := func(sample uint64, not filter.Exclusions) *harness.Tracer {
		o := harness.InNamespace(n)
		o.Sample, o.Filter.Not, o.TimeWaitEnds = sample, not, true
		return harness.StartTracer(t, o)
	}
	all := start(0, filter.Exclusions{})
	samples := map[string]*harness.Tracer{
		"without a filter on owners": start(sample, filter.Exclusions{}),
		"with a filter on owners":    start(sample, filter.Exclusions{Comms: []string{"no-such-comm"}}),
	}
	for range 8 {
		everyEnd(n)
	}
	want := recordsInSample(t, all.Stop(), sample)
	for name, tr := range samples {
		t.Run(name, func(t *testing.T) {
			lines := tr.Stop()
			got := recordsInSample(t, lines, 1)
			for _, record := range slices.Sorted(maps.Keys(want)) {
				if got[record] != want[record] {
					t.Errorf("%d times, want %d: %s", got[record], want[record], record)
				}
				delete(got, record)
			}
			for record := range got {
				t.Errorf("not in the sample: %s", record)
			}
			checkSampleCounted(t, tr, lines)
		})
	}
}

// recordsInSample counts the transition and connection records of the sockets in a sample, by type, socket, role, states
// and closed_by: times and numbers differ between tracers.
func recordsInSample(t *testing.T, lines []harness.Record, sample uint64) map[string]int {
	t.Helper()
	chosen, records := selection.Selection{Sample: sample}, make(map[string]int)
	for _, l := range slices.Concat(harness.OfType(lines, "transition"), harness.OfType(lines, "connection")) {
		cookie, err := strconv.ParseUint(l.Conn, 16, 64)
		if err != nil || cookie == 0 {
			t.Fatalf("conn is %q: %s", l.Conn, l.Raw)
		}
		of := tcp.Transition{Cookie: cookie}
		if l.Role == "listener" {
			of.Role = tcp.RoleListener
		}
		if chosen.Transition(&of) {
			records[l.Type+" "+l.Conn+" "+l.Role+" "+l.Old+" "+l.New+" "+l.TimeWaitEnd+" "+l.ClosedBy]++
		}
	}
	if len(records) < 50 {
		t.Errorf("%d different records, want at least 50", len(records))
	}
	return records
}

// checkSampleCounted checks that what the sample leaves out counts as dropped. Stop has checked the sums.
func checkSampleCounted(t *testing.T, tr *harness.Tracer, lines []harness.Record) {
	t.Helper()
	c, err := tr.Probe.Counters()
	if err != nil {
		t.Fatal(err)
	}
	sum := c.Sum()
	stop := harness.OfType(lines, "stop")[0]
	if sum.Unsampled == 0 || sum.UnsampledEnds == 0 || sum.UnsampledEnds >= sum.Unsampled || stop.Dropped != sum.Unsampled {
		t.Errorf("%d transitions are left out, %d of them ends, and %d count as dropped: want as many dropped, and more than ends", sum.Unsampled, sum.UnsampledEnds, stop.Dropped)
	}
}
