package detect

import (
	"math"
	"time"
)

const (
	// timeWait is how long a TIME_WAIT holds its port: TCP_TIMEWAIT_LEN, and what the
	// kernel's coarse timers are late, 0 to 2 seconds with 250 ticks a second.
	timeWait = 61 * time.Second
	// step is the finest time that rates are told apart in.
	step = 250 * time.Millisecond
	// longest and shortest are the windows that rates are taken over.
	longest, shortest = 16 * time.Second, step

	seconds = 64 // slots of a second: more than timeWait
	steps   = int(longest / step)
)

// ring counts per slot of time. It is moved on before it is read or written.
type ring[T int32 | uint32] struct {
	slots  [64]T
	newest int64 // number of the slot that is being filled
}

// advance moves on to the slot of a time, and tells what falls out of those slots
// that are kept.
func (r *ring[T]) advance(to int64) {
	for n := max(r.newest+1, to-int64(len(r.slots))+1); n <= to; n++ {
		r.slots[n%int64(len(r.slots))] = 0
	}
	r.newest = max(r.newest, to)
}

// sum is of the newest count slots, and of those after skipping some.
func (r *ring[T]) sum(skip, count int) (total int64) {
	for n := r.newest - int64(skip); n > r.newest-int64(skip+count) && n > r.newest-int64(len(r.slots)); n-- {
		if n >= 0 {
			total += int64(r.slots[n%int64(len(r.slots))])
		}
	}
	return total
}

// meter measures one thing that connections use up: who holds how much of it, how
// fast more is taken, and when what is held comes back.
type meter struct {
	began time.Duration // the first that was seen of it
	now   time.Duration

	live   int64        // held by connections that are open, or being opened
	spent  ring[int32]  // taken less given back without a TIME_WAIT, by steps
	closed ring[uint32] // TIME_WAITs, by the second of their birth
	half   ring[uint32] // those whose peer has not closed yet, the FIN_WAIT2 kind
}

func (m *meter) at(now time.Duration) {
	if m.began == 0 {
		m.began = now
	}
	m.now = max(m.now, now)
	m.spent.advance(int64(m.now / step))
	second := int64(m.now / time.Second)
	m.closed.advance(second)
	m.half.advance(second)
}

// opened is one more connection.
func (m *meter) opened(now time.Duration) {
	m.at(now)
	m.live++
	m.spend(1)
}

// gone is one less, that leaves nothing behind.
func (m *meter) gone(now time.Duration) {
	m.at(now)
	if m.live > 0 { // else it is older than the meter
		m.live--
		m.spend(-1)
	}
}

// lingers is one less, that leaves a TIME_WAIT. One that was not seen to open is
// taken for new: its port is held all the same.
func (m *meter) lingers(now time.Duration, halfClosed bool) {
	m.at(now)
	if m.live > 0 {
		m.live--
	} else {
		m.spend(1)
	}
	m.born(m.now, halfClosed)
}

func (m *meter) spend(n int32) {
	m.spent.slots[m.spent.newest%int64(len(m.spent.slots))] += n
}

// born enters a TIME_WAIT of some time ago.
func (m *meter) born(when time.Duration, halfClosed bool) {
	r := &m.closed
	if halfClosed {
		r = &m.half
	}
	if second := int64(when / time.Second); second > r.newest-seconds && second >= 0 && second <= r.newest {
		r.slots[second%seconds]++
	}
}

// idle: nothing is left of it.
func (m *meter) idle() bool {
	return m.live == 0 && m.closed.sum(0, seconds) == 0 && m.half.sum(0, seconds) == 0 &&
		m.now-m.began > longest && m.spent.sum(0, steps) == 0
}

// rules are what decides how long what was closed stays held.
type rules struct {
	hold     time.Duration // of a TIME_WAIT
	halfHold time.Duration // of one whose peer does not close
	finished float64       // of those, the part whose peer does close, and which then become TIME_WAITs
	scale    float64       // what the kernel counted of what the model has
}

// lingering is how many TIME_WAITs hold something, in the model.
func (m *meter) lingering(r rules) float64 {
	hold, half := slotsOf(r.hold), slotsOf(min(r.halfHold, r.hold))
	held := float64(m.closed.sum(0, hold)) + float64(m.half.sum(0, half)) +
		r.finished*float64(m.half.sum(half, hold-half))
	return held * r.scale
}

// held is what is taken now.
func (m *meter) held(r rules) float64 {
	return float64(m.live) + m.lingering(r)
}

func slotsOf(d time.Duration) int {
	return min(seconds, int((d+time.Second/2)/time.Second))
}

// rate is how fast more is taken, per second, over a window, and over less where
// the meter is younger; and how far chance may have it off.
func (m *meter) rate(window time.Duration, lumps float64) (rate, off float64) {
	slots := int(window / step)
	span := time.Duration(slots-1)*step + m.now%step
	if age := m.now - m.began; age < span {
		span = age
	}
	taken, over := float64(m.spent.sum(0, slots)), max(span, step/2).Seconds()
	if taken <= 0 {
		return 0, 0
	}
	return taken / over, math.Sqrt(taken*lumps) / over
}

// lumps is how many come at once: the variance of what is taken in a step, in
// parts of its mean, which is 1 for what comes by chance and next to 0 for what
// comes evenly. It is taken from one step to the next, so that a rate that rises
// or falls does not look like lumps.
func (m *meter) lumps() float64 {
	used := min(steps, int((m.now-m.began)/step))
	if used < 2 {
		return 1
	}
	var sum, squares float64
	before := float64(m.spent.sum(1, 1))
	for skip := 1; skip < used; skip++ { // the newest is not full yet
		value := float64(m.spent.sum(skip, 1))
		sum += value
		squares += (value - before) * (value - before)
		before = value
	}
	if sum <= 0 {
		return 1
	}
	return squares / 2 / sum
}

// forecast says how long it takes until nothing is left, if what is taken goes on
// at the rate: known releases counted in, second by second, until all that is held
// now has been released. From then on it stays as it is: that is the plateau, and
// if it fits, there is no end to announce.
func (m *meter) forecast(rate float64, r rules, capacity float64) (left time.Duration, ends bool) {
	held := m.held(r)
	if held >= capacity {
		return 0, true
	}
	hold, half := slotsOf(r.hold), slotsOf(min(r.halfHold, r.hold))
	for second := range hold {
		// What was born so many slots ago is released in this second.
		released := r.scale * (m.bornAgo(&m.closed, hold-1-second) +
			r.finished*m.bornAgo(&m.half, hold-1-second))
		if second < half {
			released += r.scale * (1 - r.finished) * m.bornAgo(&m.half, half-1-second)
		}
		grown := rate - released
		if held+grown >= capacity {
			return time.Duration((float64(second) + (capacity-held)/grown) * float64(time.Second)), true
		}
		held += grown
	}
	return 0, false
}

func (m *meter) bornAgo(r *ring[uint32], slots int) float64 {
	if slots < 0 || int64(slots) > r.newest {
		return 0
	}
	return float64(r.slots[(r.newest-int64(slots))%seconds])
}

// outlook is a forecast and what it is made of.
type outlook struct {
	held, capacity float64
	lumps          float64
	rate, off      float64
	left           time.Duration
	ends           bool
}

// look forecasts with the rate over the longest window that is no longer than the
// time to the end that it gives: who looks 10 seconds ahead does not go by half a
// second, and who has one second left not by the last 16. A window with fewer than
// four lumps in it says nothing, nor one that most of its events came at once in.
func (m *meter) look(r rules, capacity float64) outlook {
	o := outlook{held: m.held(r), capacity: capacity, lumps: m.lumps()}
	for window := longest; window >= shortest; window /= 2 {
		if window < longest && (float64(m.spent.sum(0, int(window/step))) < 4*o.lumps || m.gusty(window)) {
			break
		}
		o.rate, o.off = m.rate(window, o.lumps)
		o.left, o.ends = m.forecast(o.rate, r, capacity)
		if !o.ends || o.left >= window || o.left >= m.now-m.began {
			break
		}
	}
	return o
}

// gusty says that most of what came in a window came at once, such as what a
// program that was held up for a while makes up for.
func (m *meter) gusty(window time.Duration) bool {
	if window < 4*step || m.now-m.began < window {
		return false
	}
	var most int64
	for skip := range int(window / step) {
		most = max(most, m.spent.sum(skip, 1))
	}
	return 5*most > 3*m.spent.sum(0, int(window/step))
}

// fading says that what is taken falls off so clearly that, at this pace, the rest
// of it will fit.
func (m *meter) fading(o outlook) bool {
	age := m.now - m.began
	for window := longest; window >= 4*step; window /= 2 {
		slots := int(min(window, age) / step / 2)
		newer, older := float64(m.spent.sum(0, slots)), float64(m.spent.sum(slots, slots))
		if slots < 2 || newer < 0 || older-newer < 3*math.Sqrt(max(1, older+newer)) {
			continue
		}
		ratio := newer / older
		if o.held+newer*ratio/(1-ratio) < 0.95*o.capacity {
			return true
		}
	}
	return false
}

// steady says that the rate has been there for all of the longest window.
func (m *meter) steady(o outlook) bool {
	const parts = 4
	if m.now-m.began < longest-step {
		return false
	}
	expected := o.rate * (longest / parts).Seconds()
	least := 0.85*expected - math.Sqrt(expected*o.lumps)
	for part := range parts {
		if float64(m.spent.sum(part*steps/parts, steps/parts)) < least {
			return false
		}
	}
	return true
}

// certain says that it is no chance: the births of a whole hold, less what chance
// may add, lead to the end as well; or the rate has clearly risen since.
func (m *meter) certain(o outlook, r rules) bool {
	span := min(m.now-m.began, r.hold).Seconds()
	births := float64(m.closed.sum(0, slotsOf(r.hold))+m.half.sum(0, slotsOf(r.hold))) + float64(m.live)
	if span <= 0 {
		return false
	}
	if _, ends := m.forecast((births-math.Sqrt(births*o.lumps))/span, r, o.capacity); ends {
		return true
	}
	return o.rate-births/span > 4*o.off
}
