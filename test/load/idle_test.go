package load_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

var idle = flag.Duration("idle", time.Second, "how long an idle tracer is measured")

// The cost of a tracer on a quiet host: a filter on a namespace in which nothing happens leaves out the
// rest. Transitions elsewhere on the host disturb the measurement, so the table counts them. The test
// fails only if the tracer ends.
func TestCost_Idle(t *testing.T) {
	tcplab.RequireRoot(t)
	var b strings.Builder
	fmt.Fprintf(&b, "### Idle, %s\n\n%s. %v each, after as long for the tracer to settle.\n\n", time.Now().UTC().Format("2006-01-02 15:04 UTC"), machine(), *idle)
	b.WriteString("| tracer | context switches a second | CPU, % of a core | transitions on the host |\n|---|---|---|---|\n")
	for _, args := range [][]string{nil, {"alerts"}, {"--only", "connection"}} {
		n := tcplab.NewNetns(t)
		command := append(append([]string{tcpshift}, args...), "--netns", strconv.FormatUint(uint64(n.Inode()), 10))
		tr := startTracer(t, subject{name: "tcpshift " + strings.Join(args, " "), command: command, ready: `"type":"start"`})
		time.Sleep(*idle)
		began, before := time.Now(), usageOf(t, tr.cmd.Process.Pid)
		time.Sleep(*idle)
		took, after := time.Since(began).Seconds(), usageOf(t, tr.cmd.Process.Pid)
		var r run
		tr.end(&r, n.Inode())
		fmt.Fprintf(&b, "| %s | %.1f | %.4f | %s |\n", tr.subject.name, float64(after.switches-before.switches)/took,
			100*(after.cpu-before.cpu).Seconds()/took, firedIn(t, tr.output))
	}
	appendReport(t, b.String())
}

// usage is what all threads of a process have used.
type usage struct {
	switches uint64 // voluntary and not
	cpu      time.Duration
}

// usageOf reads /proc/PID/task: status has the switches, schedstat the time in nanoseconds
// (Documentation/scheduler/sched-stats.rst), which is finer than /proc/PID/stat.
func usageOf(t *testing.T, pid int) (u usage) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil || len(tasks) == 0 {
		t.Fatalf("the tracer has no threads: %v", err)
	}
	for _, task := range tasks {
		status, err := os.ReadFile(filepath.Join(task, "status"))
		if err != nil {
			continue // the thread has ended
		}
		for line := range strings.Lines(string(status)) {
			if name, value, _ := strings.Cut(line, ":"); strings.HasSuffix(name, "voluntary_ctxt_switches") {
				n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				u.switches += n
			}
		}
		stat, err := os.ReadFile(filepath.Join(task, "schedstat"))
		if err != nil {
			continue
		}
		spent, _, _ := strings.Cut(string(stat), " ")
		ns, err := strconv.ParseInt(spent, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		u.cpu += time.Duration(ns)
	}
	return u
}

// firedIn returns the count of the stop record of firings since the start.
func firedIn(t *testing.T, output *os.File) string {
	t.Helper()
	b, err := os.ReadFile(output.Name())
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(b), `"fired":`)
	for {
		_, later, more := strings.Cut(rest, `"fired":`)
		if !more {
			break
		}
		rest = later
	}
	fired, _, _ := strings.Cut(rest, ",")
	if !found {
		t.Fatalf("the tracer wrote no stop record: %s", b)
	}
	return fired
}
