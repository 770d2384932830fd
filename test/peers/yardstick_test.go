package peers_test

import (
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// The size of the comparison with perf; make yardstick raises both.
var (
	connections = flag.Int("connections", 50_000, "connections in each storm of the yardstick")
	rounds      = flag.Int("rounds", 1, "storms of the yardstick")
)

// The tracer has every transition of a storm that perf counts. perf counts those of the
// whole host; the tracer counts the others as filtered.
func TestPeer_Perf(t *testing.T) {
	perf := requireProgram(t, "perf")
	for round := range *rounds {
		t.Run(strconv.Itoa(round+1), func(t *testing.T) {
			var problems []string
			for range tcplab.Attempts() {
				if problems = measure(t, perf); len(problems) == 0 {
					return
				}
				t.Log(problems)
			}
			t.Error(problems)
		})
	}
}

// measure runs one storm and returns where the tracer has fewer transitions than perf.
func measure(t *testing.T, perf string) (problems []string) {
	t.Helper()
	n := tcplab.NewNetns(t)
	tracer := start(t, program, "--netns", strconv.FormatUint(uint64(n.Inode()), 10))
	tracer.await(`"type":"start"`)
	counter := startPerf(t, perf)
	began := time.Now()
	made := tcplab.Storm(n, tcplab.StormConfig{Connections: *connections})
	took := time.Since(began)
	kernel := counter.stop()
	tracer.interrupt()
	all := tracer.records()
	stop := all[len(all)-1]

	t.Logf("%d connections, %.0f a second; perf counted %d, tracer %s", made, float64(made)/took.Seconds(), kernel, stop.raw)
	if full := stop.LostRingFull + stop.LostRingBusy; full != 0 {
		t.Errorf("the tracer lost %d transitions to a full ring", full)
	}
	recorded := stop.Read + stop.LostReentry
	others := stop.Filtered // transitions of other namespaces
	problems = slices.Concat(
		shortOf("the storm's transitions", recorded, uint64(10*made+2*2)),
		shortOf("perf's count", recorded+others, kernel))
	if recorded > kernel {
		t.Errorf("the tracer has %d transitions, more than the %d of perf", recorded, kernel)
	}
	return problems
}

// shortOf returns a problem if got is less than the kernel's count. On kernels that hide
// a few events from every program, 0.05 % may be missing; see docs/accuracy.md.
func shortOf(what string, got, want uint64) []string {
	slack := uint64(0)
	if tcplab.HidesEvents() {
		slack = want / 2000
	}
	if got+slack >= want {
		return nil
	}
	return []string{fmt.Sprintf("%d of %d: %s (allowed: %d fewer)", got, want, what, slack)}
}

type perfCounter struct {
	*running
	report string
	end    io.Closer
}

// startPerf counts while the child of perf runs, which reads until its input is closed.
// The child writes a line when counting has begun.
func startPerf(t *testing.T, perf string) *perfCounter {
	t.Helper()
	tcplab.MountTracefs(t)
	input, end, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer input.Close()
	c := &perfCounter{report: t.TempDir() + "/report", end: end}
	c.running = startWith(t, input, perf, "stat", "-a", "-x", ",", "-o", c.report,
		"-e", "sock:inet_sock_set_state", "--filter", "protocol == 6", "--", "sh", "-c", "echo counting; exec cat")
	c.await("counting")
	return c
}

func (c *perfCounter) stop() uint64 {
	c.t.Helper()
	c.end.Close()
	if err := c.cmd.Wait(); err != nil {
		c.t.Fatalf("perf stat: %v: %s", err, c.stderr.String())
	}
	b, err := os.ReadFile(c.report)
	if err != nil {
		c.t.Fatalf("perf left no report: %v; standard error: %s", err, c.stderr.String())
	}
	for line := range strings.Lines(string(b)) {
		count, _, found := strings.Cut(line, ",")
		if n, err := strconv.ParseUint(count, 10, 64); found && err == nil && strings.Contains(line, "inet_sock_set_state") {
			return n
		}
	}
	c.t.Fatalf("perf's report has no count:\n%s%s", b, c.stderr.String())
	return 0
}
