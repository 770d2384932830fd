package detection_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// A storm that exhausts the ports has one alert from the beginning to the end: the forecast, the
// first failure at once, an update every ten seconds, and a close with all failures.
func TestAlert_OneForOneCause(t *testing.T) {
	tcplab.RequireRoot(t)
	t.Parallel()
	retryIfUneven(t, func() *hostPair { return oneAlert(t) })
}

func oneAlert(t *testing.T) *hostPair {
	s := newHostPair(t, nil, 100)
	tr := startTracer(t, "alerts", "--netns", fmt.Sprint(s.client.Inode()))
	s.serve(80, afterPeer)
	a := <-s.run(workload{To: s.port(80), Phases: []phase{{PerSecond: 12, For: 14 * time.Second}}})
	for deadline := time.Now().Add(waitLimit); len(pick(tr.of(s.client.Inode()), "time_wait_storm", "close")) == 0; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the alert does not close: %+v", tr.of(s.client.Inode()))
		}
	}
	tr.stop()
	all := tr.of(s.client.Inode())
	opened, end := all[0], all[len(all)-1]
	want := []string{"time_wait_storm open", "time_wait_storm update, failed"}
	for len(want) < len(sequence(all))-1 {
		want = append(want, "time_wait_storm update, failed")
	}
	want = append(want, "time_wait_storm close resolved, failed")
	if got := sequence(all); !slices.Equal(got, want) {
		t.Fatalf("the alerts are %q, want %q", got, want)
	}
	for i, x := range all[1:] {
		before, longest := all[i], 11*time.Second
		if x.Phase == "close" {
			longest += 10 * time.Second // after the last update the cause may last, and then has been gone
		}
		took := x.Time.Sub(before.Time)
		if x.Alert != opened.Alert || x.Failures < before.Failures {
			t.Errorf("another alert, or fewer failures than before: %+v", x)
		}
		if before.Failures > 0 && before.Confidence != "unverified" && (took < 10*time.Second || took > longest) {
			t.Errorf("it comes %v after the phase before: %+v", took, x)
		}
	}
	first := all[1]
	if first.Severity != "critical" || first.ExhaustionIn == nil || *first.ExhaustionIn != 0 || first.Occupancy != 100 || first.Capacity != 100 {
		t.Errorf("at the first failure: %+v", first)
	}
	if late := first.came.Sub(a.FirstNoPort); late > time.Second || !opened.came.Before(a.FirstNoPort) {
		s.pace.timingError("the alert opened at %v and reported the failure of %v after %v", opened.came, a.FirstNoPort, late)
	}
	if end.Failures != a.NoPort {
		t.Errorf("the close has %d failures, %d connects have failed", end.Failures, a.NoPort)
	}
	t.Logf("%d alerts; %d failures, the first reported after %v; open for %v", len(all), a.NoPort, first.came.Sub(a.FirstNoPort), end.Time.Sub(opened.Time))
	return s
}

// sequence gives the kind, the phase and the close reason of alerts, and whether connects have
// failed. It leaves out updates by which the kernel only confirms an alert.
func sequence(all []alert) (list []string) {
	for i, a := range all {
		if i > 0 && a.Phase == "update" && all[i-1].Confidence == "unverified" && a.Failures == all[i-1].Failures {
			continue
		}
		text := a.Kind + " " + a.Phase
		if a.CloseReason != "" {
			text += " " + a.CloseReason
		}
		if a.Failures > 0 {
			text += ", failed"
		}
		list = append(list, text)
	}
	return list
}
