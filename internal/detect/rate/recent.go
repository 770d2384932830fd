package rate

import (
	"math"
	"time"
)

// RecentRate is how many units have been taken per second within the last half to three
// quarters of a second.
func (e *Estimator) RecentRate() float64 {
	rate, _ := e.rate(3*Step, 1)
	return rate
}

// Taken is how many more units were taken than given back without a TIME_WAIT within a window, up to [MaxWindow];
// 0 if there were fewer.
func (e *Estimator) Taken(window time.Duration) float64 {
	return max(0, float64(e.taken.Sum(0, int(window/Step))))
}

// rate is how many units are taken per second over a window, or since the first
// event if that is less, and its standard deviation.
func (e *Estimator) rate(window time.Duration, burstiness float64) (rate, deviation float64) {
	count := int(window / Step)
	span := min(time.Duration(count-1)*Step+e.now%Step, e.Age())
	taken, seconds := float64(e.taken.Sum(0, count)), max(span, Step/2).Seconds()
	if taken <= 0 {
		return 0, 0
	}
	return taken / seconds, math.Sqrt(taken*burstiness) / seconds
}

// burstiness is how many connections come at once: the variance of what is taken in
// a step divided by its mean (index of dispersion). It is 1 for a Poisson process and
// near 0 for arrivals at equal distances. The variance is taken from one step to the
// next, so that a rate that rises or falls does not look like bursts.
//
// The first event of the estimator may belong to a burst that shows no other step. So until it is
// MaxWindow old, timewait sockets from before that event count, too: by the second of their creation.
func (e *Estimator) burstiness() float64 {
	used := min(maxWindowSteps, int(e.Age()/Step))
	steps := dispersion(used, func(n int) float64 { return float64(e.taken.Sum(n, 1)) })
	if used == maxWindowSteps {
		return steps
	}
	recorded := e.recordedFor()
	if recorded <= e.Age() {
		return steps
	}
	return max(steps, dispersion(slotsOf(min(recorded, MaxWindow)), func(n int) float64 { return e.timeWaits.ago(n) + e.finWait2.ago(n) }))
}

// dispersion is the variance of counts divided by their mean: those of the slots from 1 to used-1, where slot 0 is the
// newest, which is not over. It is 1 if they show nothing.
func dispersion(used int, count func(n int) float64) float64 {
	if used < 3 {
		return 1
	}
	sum, squares, before := count(1), 0.0, count(1)
	for n := 2; n < used; n++ {
		value := count(n)
		sum += value
		squares += (value - before) * (value - before)
		before = value
	}
	if sum <= 0 {
		return 1
	}
	variance := squares / 2 / float64(used-2)
	return variance / (sum / float64(used-1))
}

// burstDominates reports whether more than three fifths of what was taken in a
// window were taken in one step, as by a program that was delayed and catches up.
func (e *Estimator) burstDominates(window time.Duration) bool {
	if window < 4*Step || e.Age() < window {
		return false
	}
	var largest int64
	for skip := range int(window / Step) {
		largest = max(largest, e.taken.Sum(skip, 1))
	}
	return 5*largest > 3*e.taken.Sum(0, int(window/Step))
}
