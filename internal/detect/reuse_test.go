package detect

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect/rate"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// A TIME_WAIT holds its port as tcp_twsk_unique() decides: for tcp_tw_reuse_delay if reuse
// is on, its peer has sent a timestamp and has closed; else until its timer expires.
func TestStorm_ReuseOfEachTimeWait(t *testing.T) {
	t.Parallel()
	v4 := destination{netns: testNetns, local: netip.MustParseAddr("127.0.0.1"), peer: netip.MustParseAddr("127.0.0.1"), peerPort: 80}
	v6 := destination{netns: testNetns, local: netip.IPv6Loopback(), peer: netip.IPv6Loopback(), peerPort: 80}
	const ports = 300
	for _, tt := range []struct {
		name     string
		key      destination
		reuse    int
		delay    time.Duration
		rate     float64
		untimed  bool
		finAfter time.Duration
		fails    bool
	}{
		{"loopback, two thirds for a second", v4, 2, time.Second, 200, false, 0, false},
		{"loopback, peers that close at once", v4, 2, time.Second, 200, false, 20 * time.Millisecond, false},
		{"loopback of IPv6", v6, 2, time.Second, 200, false, 0, false},
		{"loopback, more than a second's ports", v4, 2, time.Second, 400, false, 0, true},
		{"loopback, a delay of three seconds", v4, 2, 3 * time.Second, 120, false, 0, true},
		{"loopback, a delay of three seconds, few", v4, 2, 3 * time.Second, 70, false, 0, false},
		{"loopback, a delay of a tenth of a second", v4, 2, 100 * time.Millisecond, 1500, false, 0, false},
		{"loopback, a delay of twenty seconds", v4, 2, 20 * time.Second, 20, false, 0, true},
		{"loopback, a delay of twenty seconds, few", v4, 2, 20 * time.Second, 12, false, 0, false},
		{"loopback, peers that close late", v4, 2, time.Second, 30, false, 15 * time.Second, true},
		{"loopback, peers that close late, few", v4, 2, time.Second, 12, false, 15 * time.Second, false},
		{"loopback, peers that never close", v4, 2, time.Second, 10, false, time.Hour, true},
		{"reuse, without timestamps", to(80), 1, time.Second, 10, true, 0, true},
		{"reuse, without timestamps, few", to(80), 1, time.Second, 4, true, 0, false},
		{"reuse, with timestamps", to(80), 1, time.Second, 200, false, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t, ports, Config{})
			h.limits.Reuse, h.limits.ReuseDelay, h.untimed, h.finAfter = tt.reuse, tt.delay, tt.untimed, tt.finAfter
			h.run(load{key: tt.key, by: []tcp.Owner{curl}, rate: constant(tt.rate)}, 80*time.Second, true)
			if tt.fails != (h.failed > 0) {
				t.Fatalf("the test is wrong: the first failure came after %v", h.failed-time.Hour)
			}
			opened := only(h.alerts, "time_wait_storm", Open)
			if len(opened) > 0 != tt.fails {
				t.Errorf("%d alerts: %v", len(opened), summaries(opened))
			}
			if tt.fails && len(opened) > 0 && opened[0].Monotonic >= h.failed {
				t.Errorf("the alert came %v after the first failure", opened[0].Monotonic-h.failed)
			}
		})
	}
}

// Before Linux 6.12 connect() took over timewait sockets in FIN_WAIT2, too: no storm where there is
// none, and one where there is.
func TestStorm_ReuseOfFinWait2(t *testing.T) {
	t.Parallel()
	key := destination{netns: testNetns, local: loopback, peer: loopback, peerPort: 80}
	for perSecond, fails := range map[float64]bool{10: false, 200: false, 400: true} {
		for _, unreadable := range []bool{false, true} {
			h := newHost(t, 300, Config{})
			h.limits.ReusesFinWait2, h.finAfter, h.unreadable = true, time.Hour, unreadable
			h.run(load{key: key, by: []tcp.Owner{curl}, rate: constant(perSecond)}, 80*time.Second, true)
			if fails != (h.failed > 0) {
				t.Fatalf("the test is wrong: the first failure came after %v", h.failed-time.Hour)
			}
			opened := only(h.alerts, "time_wait_storm", Open)
			if len(opened) > 0 != fails || fails && opened[0].Monotonic >= h.failed {
				t.Errorf("%.0f a second, unreadable %v, first failure after %v: %v", perSecond, unreadable, h.failed-time.Hour, summaries(opened))
			}
		}
	}
}

// An occupancy is the kernel's only where its table could be compared with the model.
func TestStorm_SourceOfOccupancy(t *testing.T) {
	for unreadable, want := range map[bool]Source{false: FromKernel, true: FromEvents} {
		for _, reuse := range []int{0, 1} {
			h := newHost(t, 300, Config{})
			h.limits.Reuse, h.unreadable = reuse, unreadable
			h.run(load{key: to(80), by: []tcp.Owner{curl}, rate: constant(400)}, 80*time.Second, true)
			for _, a := range h.alerts {
				if a.OccupancySource != want {
					t.Errorf("tcp_tw_reuse %d, unreadable %v: the source of %s is %s, want %s", reuse, unreadable, a.Kind, a.OccupancySource, want)
				}
			}
			if len(only(h.alerts, "time_wait_storm", Open)) != 1 {
				t.Errorf("tcp_tw_reuse %d: no storm", reuse)
			}
		}
	}
}

func summaries(alerts []Alert) (list []string) {
	for _, a := range alerts {
		list = append(list, fmt.Sprintf("%s after %v: %d of %d, rate %.1f, exhausted in %v",
			a.Kind, a.Monotonic-time.Hour, a.Occupancy, a.Capacity, a.Rate, a.ExhaustionIn))
	}
	return list
}

// With tcp_fin_timeout above a minute, the timewait socket in FIN_WAIT2 has only the rest.
func TestLimits_FinWait2Timeout(t *testing.T) {
	for timeout, want := range map[time.Duration]time.Duration{
		5 * time.Second: 5 * time.Second, time.Minute: time.Minute, 90 * time.Second: 30 * time.Second, 2 * time.Minute: time.Minute,
	} {
		if got := (&tcp.Limits{FinTimeout: timeout}).FinWait2TimewaitTimeout(); got != want {
			t.Errorf("tcp_fin_timeout of %v: %v, want %v", timeout, got, want)
		}
	}
}

// The cause names how long most TIME_WAITs keep their ports, in a readable number.
func TestStorm_KeptFor(t *testing.T) {
	for _, tt := range []struct {
		kind  rate.Kind
		model rate.TimeWaitModel
		want  string
	}{
		{rate.Kind{Timestamp: true}, rate.TimeWaitModel{}, "60 s"},
		{rate.Kind{Timestamp: true}, rate.TimeWaitModel{ReuseAfter: 1234567891, FinFraction: 1}, "at least 1.2s"},
		{rate.Kind{Timestamp: true}, rate.TimeWaitModel{ReuseAfter: time.Millisecond, FinFraction: 1}, "at least 1ms"},
		{rate.Kind{FinWait2: true, Timestamp: true}, rate.TimeWaitModel{}, "about 10s"},
	} {
		u := &destinationUse{}
		u.ClosedToTimeWait(time.Hour, tt.kind)
		tt.model.Hold, tt.model.FinWait2Hold, tt.model.Scale = rate.TimeWaitHold, 10*time.Second, 1
		if got := u.keptFor(tt.model); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.model, got, tt.want)
		}
	}
}

// Where most of the timewait sockets of a storm wait for the peer's FIN, its alert says so: no
// `ss state time-wait` lists them.
func TestStorm_SaysFinWait2(t *testing.T) {
	loopback := destination{netns: testNetns, local: netip.MustParseAddr("127.0.0.1"), peer: netip.MustParseAddr("127.0.0.1"), peerPort: 80}
	for name, tt := range map[string]struct {
		key   destination
		ports int
		rate  float64
	}{"which connect() could take over": {loopback, 300, 30}, "far more": {to(80), 2000, 100}} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, tt.ports, Config{HalfClosed: 400})
			h.finAfter = 59 * time.Second
			h.run(load{key: tt.key, by: []tcp.Owner{curl}, rate: constant(tt.rate)}, 3*time.Minute, true)
			h.pass(100 * time.Millisecond)
			for _, a := range only(h.alerts, timeWaitStorm, Update) {
				if !strings.Contains(a.Cause, "FIN_WAIT2") || strings.Contains(a.Cause, "in use are in TIME_WAIT") || len(a.Cause) > 480 {
					t.Errorf("%s of %d: %s", a.Phase, len(a.Cause), a.Cause)
				}
			}
			if len(only(h.alerts, timeWaitStorm, Update)) == 0 {
				t.Error(h.phases())
			}
		})
	}
}
