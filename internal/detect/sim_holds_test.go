package detect

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/detect/rate"
)

// exhaustedIn is when a capacity is used up at a rate of connections that each hold one unit for
// as long as one of holds. It is more than one hold time if that never happens.
func (u *simUse) exhaustedIn(perSecond, capacity float64, holds *simHolds) time.Duration {
	const never, step = 2 * rate.TimeWaitHold, holdStep
	switch {
	case u.occupied() >= capacity:
		return 0
	case u.occupied()+perSecond*(rate.TimeWaitHold+time.Second).Seconds() < capacity:
		return never
	}
	var released [2*rate.TimeWaitHold/step + 4]int // by step from now
	for _, release := range u.releases {
		released[min(int((max(0, release)+step-1)/step), len(released)-1)]++
	}
	occupied, sum := u.occupied(), 0.0 // sum: of what the holds have lasted until then
	for after := time.Duration(0); after <= rate.TimeWaitHold+time.Second; after += step {
		occupied -= float64(released[after/step])
		mean := after.Seconds()
		if holds != nil && holds.count > 0 {
			mean = sum / float64(holds.count)
			sum += holds.within(int(after / step))
		}
		if occupied+perSecond*mean >= capacity {
			return after
		}
	}
	return never
}

// holdsOf are how long the newest TIME_WAITs of a destination keep their ports. Before a socket
// in FIN_WAIT2 has timed out, nobody can know that the peers will never close: with longest they
// close at last.
func (o *simOracle) holdsOf(d *simDestination, longest bool) *simHolds {
	holds := &simHolds{}
	for i := range d.recent {
		h := &d.recent[i]
		switch {
		case o.r.k.now-h.at > rate.MaxWindow:
		case longest && h.finWait2 && !o.knowsUnclosed(d):
			holds.add(rate.TimeWaitHold)
		default:
			holds.add(h.hold)
		}
	}
	return holds
}

// holdStep is the resolution of exhaustedIn.
const holdStep = time.Second / 2

// simHolds are the times for which TIME_WAITs keep their ports.
type simHolds struct {
	count   int
	ends    [2*rate.TimeWaitHold/holdStep + 4]int     // how many end in each step
	seconds [2*rate.TimeWaitHold/holdStep + 4]float64 // of that step, until they end: their sum
}

func (h *simHolds) add(hold time.Duration) {
	i := min(int(hold/holdStep), len(h.ends)-1)
	h.count++
	h.ends[i]++
	h.seconds[i] += (hold - time.Duration(i)*holdStep).Seconds()
}

// within is for how long all of them together last in one step.
func (h *simHolds) within(step int) float64 {
	later := h.count
	for i := range step + 1 {
		later -= h.ends[i]
	}
	return h.seconds[step] + float64(later)*holdStep.Seconds()
}
