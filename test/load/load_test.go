package load_test

import (
	"flag"
	"os/exec"
	"regexp"
	"slices"
	"testing"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// make bench-load, bench-scale and soak set larger values.
var (
	connections = flag.Int("connections", 2_000, "connections in each storm")
	rounds      = flag.Int("rounds", 1, "pairs of storms for each tracer")
	pause       = flag.Duration("pause", 0, "between two storms")
	records     = flag.Int("records", 10_000, "records written into one ring")
	sockets     = flag.Int("sockets", 2_000, "sockets that are open when the tracer starts")
	soak        = flag.Duration("soak", 0, "how long to trace mixed load; 0: eight rounds")
	tracers     = flag.String("tracers", "", "only the tracers with a name that matches this pattern")
	doc         = flag.String("doc", "", "append the table to this file")
	warm        = flag.Bool("warm", false, "touch half of the free memory first")
)

// column has the measurements of one tracer, one of each kind for each storm.
type column struct {
	subject
	ratios    []float64 // rate divided by that of the untraced storm before it
	rates     []float64
	kernel    []float64 // time in the kernel's calls of the programs, ns per transition
	own       []float64 // CPU time of the tracer's process, ns per transition
	captured  []float64 // transitions that the tracer has reported, as a share of all
	shown     []float64 // as captured, without the transitions that some kernels hide from programs
	anonBytes []float64 // RssAnon
}

// The cost of tcpshift beside other tracers and beside the least that a tracer can do.
// It fails only if tcpshift misses transitions.
func TestCost_TracersCompared(t *testing.T) {
	tcplab.RequireRoot(t)
	tcplab.MountTracefs(t)
	var columns []*column
	pattern, err := regexp.Compile(*tracers)
	if err != nil {
		t.Fatalf("-tracers: %v", err)
	}
	for _, s := range subjects() {
		if !pattern.MatchString(s.name) {
			continue
		}
		if _, err := exec.LookPath(s.command[0]); err != nil {
			tcplab.SkipUnlessCI(t, "needs "+s.command[0]+": make install-deps")
		}
		columns = append(columns, &column{subject: s})
	}
	if *warm {
		warmMemory(t)
	}
	untraced := &column{subject: subject{name: "nothing"}}
	for range *rounds {
		for _, c := range columns {
			alone := measure(t, untraced.subject, false)
			c.add(alone, measure(t, c.subject, false))
			untraced.add(alone, alone)
			c.addTimed(measure(t, c.subject, true))
		}
	}
	columns = slices.Insert(columns, 0, untraced)
	for _, c := range columns {
		share := c.captured
		if tcplab.HidesEvents() {
			share = c.shown
		}
		if c.name == "tcpshift" && share[0] < 0.9995 {
			t.Errorf("tcpshift captured %.6f of the transitions, want 0.9995", share[0])
		}
	}
	report(t, columns, startTimes(t))
}

func (c *column) add(alone, traced run) {
	fired := float64(traced.fired)
	c.rates = append(c.rates, traced.rate)
	c.ratios = append(c.ratios, traced.rate/alone.rate)
	c.own = append(c.own, float64(traced.own.Nanoseconds())/fired)
	c.captured = append(c.captured, float64(traced.captured)/fired)
	c.shown = append(c.shown, float64(traced.captured-traced.hideable)/(fired-float64(traced.mayHide)))
	c.anonBytes = append(c.anonBytes, float64(traced.anon))
}

func (c *column) addTimed(r run) {
	c.kernel = append(c.kernel, float64(r.kernel.Nanoseconds())/float64(r.fired))
}

// startTimes returns the times from exec to the start record of tcpshift, in ms.
func startTimes(t *testing.T) (all []float64) {
	t.Helper()
	for range 5 * *rounds {
		all = append(all, float64(startTime(t).Microseconds())/1000)
	}
	return all
}
