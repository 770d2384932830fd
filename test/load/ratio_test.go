package load_test

import (
	"flag"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/tcp"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

var ratioRounds = flag.Int("ratio-rounds", 1, "how many storms TestRatio makes")

// The kernel's time for connection records and for all transitions, both also with a sample of 1/100, and for
// connection records and alerts, divided by the time for a filter that
// matches nothing. All programs are attached at once, so that each transition runs all of them: other work on the
// machine slows all down alike, and the quotients need no idle machine. They are printed, not asserted; the test fails if
// a transition of the storm has run no program of a chain.
func TestRatio_AgainstAFilterThatMatchesNothing(t *testing.T) {
	ends := tcp.EndTransitions()
	endsAndNeeds := detect.Needs()
	endsAndNeeds.Join(ends)
	kernel := probe.NewKernel()
	subjects := []*attached{
		attach(t, "nothing", probe.Options{Kernel: kernel, Filter: filter.Filter{Ports: []filter.PortRange{{First: 1, Last: 1}}}}),
		attach(t, "connection", probe.Options{Kernel: kernel, Ends: true, Filter: filter.Filter{Transitions: &ends, ExcludeOrphanFinWait2: true}}),
		attach(t, "connection, 1/100", probe.Options{Kernel: kernel, Ends: true, Sample: 100, Filter: filter.Filter{Transitions: &ends, ExcludeOrphanFinWait2: true}}),
		attach(t, "transition, 1/100", probe.Options{Kernel: kernel, Sample: 100}),
		attach(t, "transition", probe.Options{Kernel: kernel}),
		attach(t, "connection,alert", probe.Options{Kernel: kernel, Ends: true, Filter: filter.Filter{Transitions: &endsAndNeeds, ExcludeOrphanFinWait2: true}}),
	}
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		t.Fatal(err)
	}
	defer stats.Close()
	quotients := make([][]float64, len(subjects))
	for range *ratioRounds {
		for _, s := range subjects {
			s.read(t)
		}
		n := tcplab.NewNetns(t)
		made := tcplab.Storm(n, tcplab.StormConfig{Connections: *connections})
		fired := float64(10 * made)
		for i, s := range subjects {
			s.read(t)
			if float64(s.runs) < fired {
				t.Errorf("%s: its programs have run %d times for %.0f transitions", s.name, s.runs, fired)
			}
			quotients[i] = append(quotients[i], float64(s.spent)/float64(subjects[0].spent))
			t.Logf("%-17s %4.0f ns a transition, %.3f × nothing:%s", s.name, float64(s.spent)/fired, quotients[i][len(quotients[i])-1], s.text(fired))
		}
	}
	for i, s := range subjects {
		slices.Sort(quotients[i])
		t.Logf("%-17s median %.3f", s.name, quotients[i][len(quotients[i])/2])
	}
}

// attached are the programs of one probe, whose ring nobody reads.
type attached struct {
	name     string
	probe    *probe.Probe
	programs []*ebpf.Program
	names    []string
	before   []time.Duration
	of       []time.Duration // by program, since the reading before
	spent    time.Duration   // the sum of of
	runs     uint64          // of all programs, likewise
	ran      []uint64        // by program, at the reading before
}

func attach(t *testing.T, name string, o probe.Options) *attached {
	t.Helper()
	before := programIDs(t)
	o.BufferSize = 64 << 20
	p, err := probe.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	a := &attached{name: name, probe: p}
	for id := range programIDs(t) {
		if before[id] {
			continue
		}
		program, err := ebpf.NewProgramFromID(id)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { program.Close() })
		info, err := program.Info()
		if err != nil {
			t.Fatal(err)
		}
		a.programs, a.names = append(a.programs, program), append(a.names, info.Name)
	}
	a.before, a.of, a.ran = make([]time.Duration, len(a.programs)), make([]time.Duration, len(a.programs)), make([]uint64, len(a.programs))
	return a
}

// read reads what the programs have spent since the last call.
func (a *attached) read(t *testing.T) {
	t.Helper()
	a.spent, a.runs = 0, 0
	for i, p := range a.programs {
		stats, err := p.Stats()
		if err != nil {
			t.Fatal(err)
		}
		a.of[i] = stats.Runtime - a.before[i]
		a.runs += stats.RunCount - a.ran[i]
		a.before[i], a.ran[i] = stats.Runtime, stats.RunCount
		a.spent += a.of[i]
	}
}

// text lists the programs that take the time.
func (a *attached) text(fired float64) string {
	var b strings.Builder
	for i, name := range a.names {
		if share := float64(a.of[i]) / fired; share >= 1 {
			b.WriteString(" " + name + " " + time.Duration(share).String())
		}
	}
	return b.String()
}
