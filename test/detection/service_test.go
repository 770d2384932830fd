package detection_test

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// unitCgroup makes a cgroup with the name of a systemd service in the hierarchies that
// tcpshift may take the path from. It returns the file that moves a process into each.
func unitCgroup(t *testing.T, name string) (procs []string) {
	t.Helper()
	for _, hierarchy := range []string{"memory", "pids", "cpu,cpuacct", "unified", ""} {
		dir := filepath.Clean("/sys/fs/cgroup/" + hierarchy)
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err != nil {
			continue
		}
		dir = filepath.Join(dir, name+".service")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Logf("no cgroup: %v", err)
			continue
		}
		t.Cleanup(func() {
			if err := os.Remove(dir); err != nil {
				t.Errorf("remove the test's cgroup: %v", err)
			}
		})
		procs = append(procs, filepath.Join(dir, "cgroup.procs"))
	}
	return procs
}

// Of two services that cause a storm the alert names the larger one, by its systemd unit,
// with its share and its busiest process, and the other one. After that process has ended
// the alert names another one of the service, or none if none is left.
func TestAlert_NamesServices(t *testing.T) {
	tcplab.RequireRoot(t)
	tr := startTracer(t, "alerts")
	unit, wantName := "tcpshift-test-"+strconv.Itoa(os.Getpid()), "big"
	procs := unitCgroup(t, unit)
	if len(procs) > 0 {
		wantName = unit
	}
	s := newHostPair(t, tr, 800)
	s.serve(80, afterPeer)
	storm := func(name string, perSecond float64, d time.Duration, procs []string) <-chan result {
		return s.run(workload{To: s.port(80), Name: name, Cgroups: procs, UntilNoPort: true, Phases: []phase{{PerSecond: perSecond, For: d}}})
	}
	// 20 a second are of the large service, 8 of the small one: half of the ports after 14 s.
	busiest := storm("big", 10, 22*time.Second, procs)
	second := []<-chan result{storm("big", 5, 45*time.Second, procs), storm("big", 5, 45*time.Second, procs)}
	small := storm("small", 8, 45*time.Second, nil)

	opened := awaitAlert(t, tr, s.client, "time_wait_storm")
	first := (<-busiest).PID
	pids := []int{(<-second[0]).PID, (<-second[1]).PID}
	<-small
	if opened.Service != wantName || opened.Comm != "big" || math.Abs(opened.Share-20./28) > 0.04 || opened.Processes != 3 {
		t.Errorf("the alert is about %s (%s) with %d processes and %v, want %s with 3 and %.3f",
			opened.Service, opened.Comm, opened.Processes, opened.Share, wantName, 20./28)
	}
	if opened.PID != first || math.Abs(opened.PIDShare-10./28) > 0.04 {
		t.Errorf("the busiest process is %d with %v, want %d with %.3f", opened.PID, opened.PIDShare, first, 10./28)
	}
	if opened.NextService != "small" || math.Abs(opened.NextShare-8./28) > 0.04 {
		t.Errorf("the next service is %s with %v, want small with %.3f", opened.NextService, opened.NextShare, 8./28)
	}
	updates := pick(tr.of(s.client.Inode()), "time_wait_storm", "update")
	if len(updates) == 0 {
		t.Fatal("the alert has no update")
	}
	later := updates[len(updates)-1]
	if later.PID == first || later.PID != 0 && !slices.Contains(pids, later.PID) || later.Processes > 2 || later.Service != wantName {
		t.Errorf("after process %d has ended the alert is about %s with %d processes, the busiest %d; want one of %v",
			first, later.Service, later.Processes, later.PID, pids)
	}
	t.Logf("opened: %+v", opened)
	t.Logf("last update: %+v", later)
	tr.stop()
	for _, a := range pick(tr.of(s.client.Inode()), "time_wait_storm", "close") {
		if a.PID != 0 || a.Processes != 0 || a.Service != wantName {
			t.Errorf("all processes have ended, and the close names %d of %d", a.PID, a.Processes)
		}
	}
}
