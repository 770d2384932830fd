package detect

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/detect/rate"
)

// growth is a count and how it has grown, over windows from seconds to eight days: one
// more in an hour is growth, too. It takes about 700 bytes of memory.
type growth struct {
	count   int
	changes rate.Counter // of add and remove, by second
	levels  [growthLevels]growthLevel
	since   time.Duration // when add last raised the count from 0; 0: never
	raised  time.Duration // when add last raised the count; 0: never
}

// growthLevel has the count at regular intervals, newest first.
type growthLevel struct {
	samples [12]int32
	newest  int64 // number of the newest sample
}

const (
	growthLevels = 7
	// shortestInterval is the interval of the first level; that of each other level is
	// four times that of the one before. Twelve samples go back three minutes, or eight days.
	shortestInterval = 15 * time.Second
)

func intervalOf(level int) time.Duration { return shortestInterval << (2 * level) }

func newGrowth(now time.Duration) (g growth) {
	for i := range g.levels {
		g.levels[i].newest = int64(now / intervalOf(i))
	}
	return g
}

// advance must be called before any other method, with the present time.
func (g *growth) advance(now time.Duration) {
	g.changes.Advance(int64(now / time.Second))
	for i := range g.levels {
		l := &g.levels[i]
		at := int64(now / intervalOf(i))
		for l.newest = max(l.newest, at-int64(len(l.samples))); l.newest < at; l.newest++ {
			copy(l.samples[1:], l.samples[:])
			l.samples[0] = int32(g.count)
		}
	}
}

// add counts one more, which has been there since the time at: the present or the past.
func (g *growth) add(at time.Duration) {
	if g.count == 0 {
		g.since = at
	}
	g.count++
	g.raised = max(g.raised, at)
	g.changes.AddAt(int64(at/time.Second), 1)
}

// addEarlier counts one more that is no growth: it was there before counting began.
func (g *growth) addEarlier() {
	g.count++
	for i := range g.levels {
		for n := range g.levels[i].samples {
			g.levels[i].samples[n]++
		}
	}
}

// removeEarlier counts one less of those that addEarlier has counted: its end does not hide the
// growth of the others.
func (g *growth) removeEarlier() {
	g.count--
	for i := range g.levels {
		for n := range g.levels[i].samples {
			g.levels[i].samples[n]--
		}
	}
}

// remove counts one less of those that add has counted.
func (g *growth) remove() {
	g.count--
	g.changes.Add(-1)
}

// grows reports whether the count grows in the window of at least one level. The window begins
// at sample 11, sample 5 is its middle, and sample 1 is one to two intervals old. All of this must
// be true:
//   - the count has risen since sample 1;
//   - the count is at least a quarter above sample 11;
//   - it fell neither from sample 11 to sample 5, nor from sample 5 to sample 1;
//   - in the windows that are longer than three minutes it rose from sample 5 to sample 1: what
//     came all at once is growth for three minutes only.
func (g *growth) grows() bool {
	for i := range g.levels {
		h := &g.levels[i].samples
		if g.count <= int(h[1]) || h[1] < h[5] || h[5] < h[11] || 4*g.count < 5*int(h[11]) {
			continue
		}
		if i == 0 || h[1] > h[5] {
			return true
		}
	}
	return false
}

// perSecond is how many more there are per second, over the shortest window in which they
// are enough to estimate a rate. It falls soon after no more come: see boundedRate.
func (g *growth) perSecond(now time.Duration) float64 {
	const enough = 16
	age := now - g.since
	for seconds := 4; seconds <= 64; seconds *= 2 {
		if n := g.changes.Sum(0, seconds); n >= enough {
			return g.boundedRate(float64(n), min(age, time.Duration(seconds-1)*time.Second+now%time.Second), now)
		}
	}
	for i := range g.levels {
		interval := intervalOf(i)
		for n, before := range g.levels[i].samples {
			more := g.count - int(before)
			window := time.Duration(n)*interval + now%interval
			if longest := i == growthLevels-1 && n == len(g.levels[i].samples)-1; more >= enough/2 || longest {
				return g.boundedRate(float64(more), min(age, window), now)
			}
		}
	}
	return 0
}

// stallFor is for how long a host may stall without having become slower.
const stallFor = 4 * time.Second

// boundedRate is the rate of n more within a window. After stallFor without one it is at most three bursts
// in the time since the last one came: at a higher rate it would be improbable (5 %) that none has come.
func (g *growth) boundedRate(n float64, window, now time.Duration) float64 {
	perSecond := max(0, n) / max(window, time.Second/4).Seconds()
	if quiet := now - g.raised; quiet > stallFor {
		perSecond = min(perSecond, 3*g.burstiness()/quiet.Seconds())
	}
	return perSecond
}

// burstiness is how many come at once, at least 1: the variance of neighbouring seconds divided by the mean,
// from the first to the last second in which some came, of the last minute.
func (g *growth) burstiness() float64 {
	const minute = 60
	var sum, squares, atLast, last float64
	for skip := minute; skip >= 0; skip-- {
		value := float64(g.changes.Sum(skip, 1))
		if sum > 0 {
			squares += (value - last) * (value - last)
		}
		sum += max(0, value)
		if last = value; value > 0 {
			atLast = squares
		}
	}
	return max(1, atLast/2/max(1, sum))
}
