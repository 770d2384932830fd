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
func (e *Estimator) burstiness() float64 {
	used := min(maxWindowSteps, int(e.Age()/Step))
	if used < 2 {
		return 1
	}
	var sum, squares float64
	before := float64(e.taken.Sum(1, 1))
	for skip := 1; skip < used; skip++ { // the newest step is not full yet
		value := float64(e.taken.Sum(skip, 1))
		sum += value
		squares += (value - before) * (value - before)
		before = value
	}
	if sum <= 0 {
		return 1
	}
	return squares / 2 / sum
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
