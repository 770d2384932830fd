package trace

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// fakeMonitor opens an alert at the first transition, and closes it at the end.
type fakeMonitor struct {
	seen, lost uint64
	closed     []tcp.Transition
	opened     bool
	finished   int
	leftOut    uint64 // for each transition
	culprit    detect.Culprit
}

func (m *fakeMonitor) Observe(*tcp.Transition) { m.seen++ }

func (m *fakeMonitor) ResetDecided(t *tcp.Transition) { m.closed = append(m.closed, *t) }
func (m *fakeMonitor) AddLost(count uint64)           { m.lost += count }

// SeededAfter says that seeding is done once something was observed.
func (m *fakeMonitor) SeededAfter() time.Duration { return time.Duration(m.seen) * time.Millisecond }

func (m *fakeMonitor) Usage() []detect.Usage { return nil }

func (m *fakeMonitor) AlertsSuppressed() uint64 { return 3 * m.seen }

func (m *fakeMonitor) LeftOut() detect.LeftOut {
	return detect.LeftOut{Destinations: m.leftOut * m.seen}
}

func (m *fakeMonitor) HasOpenAlerts() bool { return false }

func (m *fakeMonitor) NotifyAnswers(func()) {}

func (m *fakeMonitor) Alerts() []detect.Alert {
	if m.opened || m.seen == 0 {
		return nil
	}
	m.opened = true
	return []detect.Alert{{ID: "1", Kind: "time_wait_storm", Phase: detect.Open, Finding: detect.Finding{Culprit: m.culprit}}}
}

func (m *fakeMonitor) Finish() []detect.Alert {
	m.finished++
	return append(m.Alerts(), detect.Alert{ID: "1", Kind: "time_wait_storm", Phase: detect.Close, Finding: detect.Finding{Culprit: m.culprit}})
}

func monitored(t *testing.T, cfg Config, source *fakeSource) (*fakeMonitor, string, error) {
	t.Helper()
	return monitoredBy(t, &fakeMonitor{}, &fakeSink{}, cfg, source)
}

func monitoredBy(t *testing.T, m *fakeMonitor, sink *fakeSink, cfg Config, source *fakeSource) (*fakeMonitor, string, error) {
	t.Helper()
	cfg.Source, cfg.Outputs, cfg.Monitor, cfg.Duration = source, to(sink, cfg.Outputs), m, time.Second
	err := Run(context.Background(), cfg)
	if m.finished != 1 {
		t.Errorf("the monitor was finished %d times, want once", m.finished)
	}
	return m, sink.written.String(), err
}

// The monitor observes every transition, whatever record types are written. Its alerts
// come before stop.
func TestAlerts_EveryTransitionObserved(t *testing.T) {
	for _, only := range [][]string{nil, {"alert"}, {"alert", "stats"}} {
		synctest.Test(t, func(t *testing.T) {
			m, out, err := monitored(t, Config{Outputs: selecting(only)}, &fakeSource{turns: [][][]byte{samples(3)}, left: samples(2)})
			if err != nil || m.seen != 5 {
				t.Errorf("only %v: %d transitions were observed, want 5; %v", only, m.seen, err)
			}
			opened, closed := strings.Index(out, `"phase":"open"`), strings.Index(out, `"phase":"close"`)
			if stop := strings.Index(out, `"type":"stop"`); opened < 0 || closed < opened || stop < closed {
				t.Errorf("only %v: open at %d, close at %d, stop at %d of\n%s", only, opened, closed, stop, out)
			}
		})
	}
}

// stats and stop have the time that seeding took, once it is over.
func TestAlerts_SeededAfter(t *testing.T) {
	for n, want := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			_, out, err := monitored(t, Config{StatsInterval: time.Hour}, &fakeSource{turns: [][][]byte{samples(n)}})
			if count := strings.Count(out, `"seeded_after_ns":1000000`); err != nil || (count == 2) != want || (count == 0) == want {
				t.Errorf("%d records have it, want all: %v, %v\n%s", count, want, err, out)
			}
		})
	}
}

// stats and stop have the number of alerts that were left out.
func TestAlerts_Suppressed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, out, err := monitored(t, Config{StatsInterval: time.Hour}, &fakeSource{turns: [][][]byte{samples(1)}, left: samples(1)})
		if count := strings.Count(out, `"alerts_suppressed":6`); err != nil || count != 2 {
			t.Errorf("%d records have it, want stats and stop: %v\n%s", count, err, out)
		}
	})
}

// stats and stop have the number of what detection has left out. The operator gets one message.
func TestAlerts_LeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var notices []string
		cfg := Config{StatsInterval: time.Hour, Notify: func(message string) { notices = append(notices, message) }}
		source := &fakeSource{turns: [][][]byte{samples(1), samples(1)}, left: samples(1)}
		_, out, err := monitoredBy(t, &fakeMonitor{leftOut: 5}, &fakeSink{}, cfg, source)
		if count := strings.Count(out, `"detection_left_out":15`); err != nil || count != 2 {
			t.Errorf("%d records have it, want stats and stop: %v\n%s", count, err, out)
		}
		if len(notices) != 1 || !strings.Contains(notices[0], "destinations") {
			t.Errorf("%q, want one message", notices)
		}
	})
}

// The monitor is informed of transitions that were lost in the kernel.
func TestAlerts_MonitorGetsLosses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &fakeSource{turns: [][][]byte{samples(1)}}
		source.others = probe.Counters{{Entered: 7, RingFull: 7}}
		m, _, err := monitored(t, Config{}, source)
		if err != nil || m.lost != 7 {
			t.Errorf("%d losses were reported, want 7; %v", m.lost, err)
		}
	})
}

// An open alert is closed even if reading fails.
func TestAlerts_ClosedAfterFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		_, out, err := monitored(t, Config{}, &fakeSource{turns: [][][]byte{samples(1)}, readErr: broken, readErrAt: 2})
		if !errors.Is(err, broken) || !strings.Contains(out, `"phase":"close"`) {
			t.Errorf("%v\n%s", err, out)
		}
	})
}

// culpritIn is a culprit whose cgroup was not known at its last transition.
func culpritIn(t *testing.T, cgroupID uint64) detect.Culprit {
	t.Helper()
	const second = time.Second
	e := detect.New(detect.Config{}, second)
	owner := tcp.Owner{PID: 42, Comm: tcp.Comm{'p', 'h', 'p'}, Source: tcp.PIDTask}
	for range 100 {
		tr := tcp.Transition{Monotonic: 2 * second, Owner: owner, CgroupID: cgroupID, Role: tcp.RoleClient, Peer: tcp.Endpoint{Port: 80}}
		tr.Old, tr.New = tcp.Close, tcp.SynSent
		e.Observe(&tr)
		tr.Old, tr.New, tr.Error = tcp.SynSent, tcp.Close, tcp.Errno(unix.ECONNREFUSED)
		e.Observe(&tr)
	}
	for _, a := range e.Tick(4 * second) {
		if a.Culprit.Service == "php" {
			return a.Culprit
		}
	}
	t.Fatal("there is no alert about the process")
	return detect.Culprit{}
}

// An alert that has opened before its container's name was found has it in the next phase, also without another
// transition of its service.
func TestAlerts_NameFoundLater(t *testing.T) {
	const container = "docker-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.scope"
	for _, tt := range []struct {
		path []string
		want []string
	}{
		{[]string{container, "system.slice"}, []string{`"service":"php"`, `"service":"web"`}},
		{[]string{"fpm.service", container, "system.slice"}, []string{`"service":"fpm"`, `"service":"fpm"`}},
	} {
		synctest.Test(t, func(t *testing.T) {
			m := &fakeMonitor{culprit: culpritIn(t, 7)}
			source := &fakeSource{turns: [][][]byte{{cgroupPath(7, 0, tt.path...), sample(1)}}}
			cfg := Config{Outputs: selecting([]string{"alert"}), Names: &fakeNames{}}
			_, out, err := monitoredBy(t, m, &fakeSink{}, cfg, source)
			var got []string
			for line := range strings.Lines(out) {
				if at := strings.Index(line, `"service":`); at >= 0 {
					got = append(got, line[at:at+len(`"service":"php"`)])
				}
			}
			if err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("in %v: got %v and the error %v, want %v", tt.path, got, err, tt.want)
			}
		})
	}
}
