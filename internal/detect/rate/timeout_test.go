package rate

import (
	"math"
	"testing"
	"time"
)

// Sockets in FIN_WAIT2 with several timeouts, whose peers never close, occupy as many units as each timeout lasts, and
// the forecast agrees.
func TestEstimator_OwnTimeouts(t *testing.T) {
	var e Estimator
	m := TimeWaitModel{Hold: TimeWaitHold, FinWait2Hold: time.Minute, Scale: 1}
	now := time.Hour
	for range 1200 { // two minutes with 30 a second of each timeout
		now += 100 * time.Millisecond
		e.Advance(now)
		for _, timeout := range []time.Duration{0, 3 * time.Second, 30 * time.Second} {
			for range 3 {
				e.Opened(now)
				e.ClosedToTimeWait(now, Kind{FinWait2: true, Timestamp: true, Timeout: timeout})
			}
		}
	}
	want := 30 * (60 + TimeoutHold(3*time.Second).Seconds() + 30)
	if got := e.TimeWaits(m); math.Abs(got-want) > 70 { // of the long ones only whole seconds count
		t.Errorf("%.0f, want %.0f", got, want)
	}
	if got := e.Plateau(90, m); math.Abs(got-want) > 40 {
		t.Errorf("the plateau is %.0f, want %.0f", got, want)
	}
	if in, exhausts := e.Exhaustion(90, m, 1.05*want); exhausts {
		t.Errorf("exhausted in %v, with a plateau of %.0f", in, want)
	}
	m.FinFraction = 1 // all peers close
	if got := e.TimeWaits(m); math.Abs(got-90*60.5) > 60 {
		t.Errorf("%.0f if all peers close, want %.0f", got, 90*60.5)
	}
	m.FinDelay = 10 * time.Second                                             // too late for the shortest timeout
	if got, want := e.TimeWaits(m), 60*63.5+30*3.2; math.Abs(got-want) > 70 { // a Counter keeps 64 s
		t.Errorf("%.0f if all peers close after 10 s, want %.0f", got, want)
	}
}

// More timeouts than there is room for count as the nearest ones, and none is lost.
func TestEstimator_TooManyTimeouts(t *testing.T) {
	var e Estimator
	e.Advance(time.Hour)
	for i := range 60 {
		e.ClosedToTimeWait(time.Hour, Kind{FinWait2: true, Timeout: time.Duration(i+1) * time.Second})
	}
	if got := e.FinWait2Running(time.Minute, 0); got != 60 || len(e.own) > maxOwn {
		t.Errorf("%d sockets, %d timeouts", got, len(e.own))
	}
	e.Advance(time.Hour + 70*time.Second)
	e.ClosedToTimeWait(time.Hour+70*time.Second, Kind{FinWait2: true, Timeout: 50 * time.Second})
	if got := e.FinWait2CreatedIn(3670, 50*time.Second); got != 1 {
		t.Errorf("old timeouts leave no room: %.0f", got)
	}
}

// A few sockets with other timeouts do not take the room of a timeout that many have.
func TestEstimator_FewWithOtherTimeouts(t *testing.T) {
	for _, others := range []int{6, 60} {
		var e Estimator
		m := TimeWaitModel{Hold: TimeWaitHold, FinWait2Hold: TimeoutHold(7 * time.Second), Scale: 1}
		now := time.Hour
		for i := range 1800 { // three minutes; the others come first, and are one a second
			now += 100 * time.Millisecond
			if i%10 == 0 {
				e.Opened(now)
				e.ClosedToTimeWait(now, Kind{FinWait2: true, Timeout: time.Duration(i/10%others+1) * time.Second})
			}
			for range 3 {
				if i >= 200 {
					e.Opened(now)
					e.ClosedToTimeWait(now, Kind{FinWait2: true, Timeout: time.Minute})
				}
			}
		}
		if got := e.TimeWaits(m); got < 0.95*30*60 || got > 1.05*31*61 {
			t.Errorf("%d other timeouts: %.0f, want about %d", others, got, 30*60)
		}
		if len(e.own) > maxOwn {
			t.Errorf("%d timeouts", len(e.own))
		}
		if got, want := e.FinWait2Running(TimeWaitHold, 10*time.Second), e.finWait2.Total(); others > 6 && got > want {
			t.Errorf("%d sockets of %d", got, want)
		}
	}
}
