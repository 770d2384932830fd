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
	Burstiness          float64       // how many units are taken at once: variance divided by mean
	Exhausts            bool          // the capacity is exhausted within one hold time
	ExhaustedIn         time.Duration // only where Exhausts
}

// Forecast predicts when a capacity is exhausted. It tries windows from MaxWindow down,
// and uses the rate of the first one that is no longer than the time to exhaustion at
// that rate. So half a second of traffic does not decide a forecast of 10 s, nor do 16 s
// of traffic decide a forecast of 1 s. Forecast uses no shorter window that has fewer
// than four bursts in it, or in which one burst dominates.
func (e *Estimator) Forecast(m TimeWaitModel, capacity float64) Forecast {
	f := Forecast{Occupancy: e.Occupancy(m), Capacity: capacity, Burstiness: e.burstiness()}
	for window := MaxWindow; window >= minWindow; window /= 2 {
		if window < MaxWindow &&
			(float64(e.taken.Sum(0, int(window/Step))) < 4*f.Burstiness || e.burstDominates(window)) {
			break
		}
		f.Rate, f.Deviation = e.rate(window, f.Burstiness)
		f.ExhaustedIn, f.Exhausts = e.Exhaustion(f.Rate, m, capacity)
		if !f.Exhausts || f.ExhaustedIn >= window || f.ExhaustedIn >= e.Age() {
			break
		}
	}
	return f
}

// Exhaustion is the time until the occupancy reaches the capacity, if units are taken
// at a constant rate per second. It steps second by second through the known releases,
// until everything that is occupied now has been released. From then on the occupancy
// stays as it is (the plateau): if that is below the capacity, exhausts is false.
func (e *Estimator) Exhaustion(rate float64, m TimeWaitModel, capacity float64) (in time.Duration, exhausts bool) {
	occupancy := e.Occupancy(m)
	if occupancy >= capacity {
		return 0, true
	}
	hold, finWait2 := slotsOf(m.Hold), slotsOf(min(m.FinWait2Hold, m.Hold))
	for second := range hold {
		// What was created that many slots ago is released in this second.
		released := m.Scale * (e.timeWaits.ago(hold-1-second) + m.FinFraction*e.finWait2.ago(hold-1-second))
		if second < finWait2 {
			released += m.Scale * (1 - m.FinFraction) * e.finWait2.ago(finWait2-1-second)
		}
		growth := rate - released
		if occupancy+growth >= capacity {
			return time.Duration((float64(second) + (capacity-occupancy)/growth) * float64(time.Second)), true
		}
		occupancy += growth
	}
	return 0, false
}

// Declining reports whether the rate falls so clearly that everything that will still
// be taken, if it goes on falling in this way, fits into the capacity.
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

// Sustained reports whether units were taken at the rate of f evenly over MaxWindow.
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

// Significant reports whether the forecast is more than chance: the mean rate of one
// hold time, less one standard deviation, leads to exhaustion as well; or the rate
// has clearly risen since, by more than four standard deviations.
func (e *Estimator) Significant(f Forecast, m TimeWaitModel) bool {
	span := min(e.Age(), m.Hold).Seconds()
	if span <= 0 {
		return false
	}
	hold := slotsOf(m.Hold)
	created := float64(e.timeWaits.Sum(0, hold)+e.finWait2.Sum(0, hold)) + float64(e.open)
	if _, exhausts := e.Exhaustion((created-math.Sqrt(created*f.Burstiness))/span, m, f.Capacity); exhausts {
		return true
	}
	return f.Rate-created/span > 4*f.Deviation
}
