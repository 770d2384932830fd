package rate

import (
	"math"
	"time"
)

// Forecast is a prediction, with the values that it is computed from.
type Forecast struct {
	Occupancy, Capacity float64       // units now, and at most
	Rate                float64       // units taken per second
	Deviation           float64       // standard deviation of Rate
	Window              time.Duration // over which Rate is taken
	Burstiness          float64       // how many units are taken at once: variance divided by mean
	Exhausts            bool          // the capacity is exhausted within one hold time
	ExhaustedIn         time.Duration // only where Exhausts
}

// Forecast predicts when a capacity is exhausted. It tries windows from MaxWindow down,
// and uses the rate of the first one that is no longer than the time to exhaustion at
// that rate. So half a second of traffic does not decide a forecast of 10 s, nor do 16 s
// of traffic decide a forecast of 1 s. Forecast uses no shorter window that has fewer
// than four units or four bursts in it, or in which one burst dominates.
func (e *Estimator) Forecast(m TimeWaitModel, capacity float64) Forecast {
	f := Forecast{Occupancy: e.Occupancy(m), Capacity: capacity, Burstiness: e.burstiness()}
	for window := MaxWindow; window >= minWindow; window /= 2 {
		if window < MaxWindow &&
			(float64(e.taken.Sum(0, int(window/Step))) < 4*max(1, f.Burstiness) || e.burstDominates(window)) {
			break
		}
		f.Window = window
		f.Rate, f.Deviation = e.rate(window, f.Burstiness)
		f.ExhaustedIn, f.Exhausts = e.Exhaustion(f.Rate, m, capacity)
		if !f.Exhausts || f.ExhaustedIn >= window || f.ExhaustedIn >= e.Age() {
			break
		}
	}
	return f
}

// Exhaustion is the time until the occupancy reaches the capacity, if from now on units are taken at a
// constant rate per second. It steps second by second through the known releases, and those of
// what is taken meanwhile (shares), until everything that is occupied now has been released.
// From then on the occupancy stays as it is (the plateau): if that is below the capacity,
// exhausts is false.
func (e *Estimator) Exhaustion(rate float64, m TimeWaitModel, capacity float64) (in time.Duration, exhausts bool) {
	occupancy := e.Occupancy(m)
	if occupancy >= capacity {
		return 0, true
	}
	reused, ends := e.shares(m)
	delayed := reused * e.delayedShare(m)
	taken := rate * min(1, m.Scale) // if the kernel has fewer, those that are taken also end early
	hold := slotsOf(m.Hold)
	for second := range hold {
		again := (reused-delayed)*passed(second, m.ReuseAfter) + delayed*passed(second, m.ReuseAfter+m.FinDelay) + ends.passed(second)
		growth := taken*(1-again) - m.Scale*e.released(second, m) - m.TimeWaitOffset/float64(hold)
		if occupancy+growth >= capacity {
			return time.Duration((float64(second) + (capacity-occupancy)/growth) * float64(time.Second)), true
		}
		occupancy += growth
	}
	return 0, false
}

// Plateau is how many units are occupied once as many are released each second as are taken. It
// assumes a constant rate per second, and that the number of open connections stays as it is now.
func (e *Estimator) Plateau(rate float64, m TimeWaitModel) float64 {
	return e.Connections(m) + rate*min(1, m.Scale)*e.MeanHold(m).Seconds()
}

// MeanHold is how long a TIME_WAIT occupies its unit on average, if those to come are like those created
// within the last MaxWindow.
func (e *Estimator) MeanHold(m TimeWaitModel) time.Duration {
	reused, ends := e.shares(m)
	unclosed, seconds := ends.total()
	seconds += reused*m.ReuseAfter.Seconds() + (1-reused-unclosed)*m.Hold.Seconds()
	if m.reuses() {
		seconds += reused * e.delayedShare(m) * m.FinDelay.Seconds()
	} else {
		seconds += e.delayedShare(m) * m.FinDelay.Seconds()
	}
	return time.Duration(seconds * float64(time.Second))
}

// released is how many of the units that TIME_WAITs occupy now are released in one second of the
// future: 0 is the next one.
func (e *Estimator) released(second int, m TimeWaitModel) float64 {
	// What was created hold-1-second slots ago is released in this second.
	hold := slotsOf(m.Hold)
	if !m.reuses() {
		return e.releasedByTimers(second, m)
	}
	count := e.untimed.ago(hold - 1 - second)
	for i := -1; i < len(e.own) && m.FinFraction < 1; i++ {
		count += e.releasedUnclosed(i, second, m)
	}
	if left := m.ReuseAfter - time.Duration(second)*time.Second; left > 0 {
		young := e.TimedWithin(left) - e.TimedWithin(max(0, left-time.Second))
		for n := slotsOf(left - time.Second); n < slotsOf(left) && m.FinFraction < 1; n++ {
			young -= e.waiting(n, m) // they wait on
		}
		count += max(0, young)
	}
	if left := m.ReuseAfter + m.FinDelay - time.Duration(second)*time.Second; m.FinDelay > 0 && left > 0 {
		// Those in FIN_WAIT2 are released later than the others of their age.
		reuse := m.ReuseAfter - time.Duration(second)*time.Second
		count += e.timedFinWait2Within(left) - e.timedFinWait2Within(left-time.Second)
		count -= e.timedFinWait2Within(reuse) - e.timedFinWait2Within(reuse-time.Second)
	}
	return max(0, count)
}

// delayedShare is the fraction of the timewait sockets created within MaxWindow that are released later by
// FinDelay, because they were created in FIN_WAIT2. If connect() takes over TIME_WAITs, delayedShare is a fraction
// of the sockets with a timestamp.
func (e *Estimator) delayedShare(m TimeWaitModel) float64 {
	if m.FinDelay == 0 {
		return 0
	}
	if !m.reuses() {
		window := slotsOf(MaxWindow)
		inFinWait2 := float64(e.finWait2.Sum(0, window))
		return m.FinFraction * inFinWait2 / max(1, inFinWait2+float64(e.timeWaits.Sum(0, window)))
	}
	timed := float64(e.timed.Sum(0, maxWindowSteps))
	return min(1, e.timedFinWait2Within(MaxWindow)/max(1, timed))
}

// passed is the fraction, 0 to 1, of one second of the future (0 is the next one) that comes later than hold from
// now. Units that are taken from now on at a constant rate, and are released after hold, are released at that
// rate in this fraction of the second.
func passed(second int, hold time.Duration) float64 {
	return min(1, max(0, float64(second+1)-hold.Seconds()))
}

// reuses reports whether connect() takes over TIME_WAITs before their timers expire.
func (m *TimeWaitModel) reuses() bool { return m.ReuseAfter > 0 && m.ReuseAfter < m.Hold }

// shares are fractions of the timewait sockets that were created within MaxWindow: those
// that connect() may take over after ReuseAfter; and those in FIN_WAIT2 whose peers never
// close, which end after their timeouts. All others end after Hold.
func (e *Estimator) shares(m TimeWaitModel) (reused float64, ends endings) {
	window := slotsOf(MaxWindow)
	all := float64(e.timeWaits.Sum(0, window) + e.finWait2.Sum(0, window))
	switch {
	case all == 0 && m.reuses():
		return 1, ends
	case all == 0:
		return 0, ends
	case m.reuses():
		waiting := 0.0
		for n := 0; n < window && m.FinFraction < 1; n++ {
			waiting += (1 - m.FinFraction) * max(0, e.finWait2.ago(n)-e.untimed.ago(n))
		}
		reused = max(0, 1-(float64(e.untimed.Sum(0, window))+waiting)/all)
	}
	for i := -1; i < len(e.own); i++ {
		if timeout := e.holdOf(i, m); timeout < m.Hold {
			ends[i+1] = ending{(1 - m.closes(timeout, i)) * e.countOf(i, window) / all, timeout}
		}
	}
	return reused, ends
}

// Declining reports whether the rate falls clearly, and so fast that all that will still
// be taken fits into the capacity if the rate goes on falling in this way.
func (e *Estimator) Declining(f Forecast) bool {
	for window := MaxWindow; window >= 4*Step; window /= 2 {
		half := int(min(window, e.Age()) / Step / 2)
		newer, older := float64(e.taken.Sum(0, half)), float64(e.taken.Sum(half, half))
		if half < 2 || newer < 0 || older-newer < 3*math.Sqrt(max(1, older+newer)) {
			continue
		}
		ratio := newer / older
		// The sum of a geometric series is what is still to come.
		if f.Occupancy+newer*ratio/(1-ratio) < 0.95*f.Capacity {
			return true
		}
	}
	return false
}

// Sustained reports whether units were taken evenly over MaxWindow, at the rate of f.
func (e *Estimator) Sustained(f Forecast) bool {
	const parts = 4
	if e.Age() < MaxWindow-Step {
		return false
	}
	expected := f.Rate * (MaxWindow / parts).Seconds()
	least := 0.85*expected - math.Sqrt(expected*f.Burstiness)
	for part := range parts {
		if float64(e.taken.Sum(part*maxWindowSteps/parts, maxWindowSteps/parts)) < least {
			return false
		}
	}
	return true
}

// recordedFor is how long ago the oldest recorded timewait socket was created, in whole seconds; 0 if there is
// none. That may be before the first event: see TimeWaitCreated.
func (e *Estimator) recordedFor() time.Duration {
	for n := slots - 1; n > 0; n-- {
		if e.timeWaits.ago(n)+e.finWait2.ago(n) > 0 {
			return time.Duration(n) * time.Second
		}
	}
	return 0
}

// Significant reports whether the forecast is more than chance: the mean rate of one
// hold time, less one standard deviation, leads to exhaustion as well; or the rate
// has clearly risen since, by more than four standard deviations.
func (e *Estimator) Significant(f Forecast, m TimeWaitModel) bool {
	hold, delay := slotsOf(m.Hold), time.Duration(e.delayedShare(m)*float64(m.FinDelay))
	length := m.Hold + delay
	if reused, _ := e.shares(m); reused > 0.5 { // most units are released again after ReuseAfter: a hold time is that long
		hold = max(2, slotsOf(m.ReuseAfter+delay+time.Second/2))
		length = time.Duration(hold) * time.Second
	}
	span := min(max(e.Age(), e.recordedFor()), length).Seconds()
	if span <= 0 {
		return false
	}
	created := float64(e.timeWaits.Sum(0, hold)+e.finWait2.Sum(0, hold)) + float64(e.open)
	if _, exhausts := e.Exhaustion((created-math.Sqrt(created*f.Burstiness))/span, m, f.Capacity); exhausts {
		return true
	}
	return f.Rate-created/span > 4*f.Deviation
}
