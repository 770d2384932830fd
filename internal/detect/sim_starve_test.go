package detect

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// simStall is a time in which something gets no CPU: on a starved machine.
type simStall struct {
	of          simStarved
	from, until time.Duration
}

// simStarved is what is starved.
type simStarved int

const (
	starvedLoop   simStarved = iota // neither transitions nor answers reach the engine, and it does not tick
	starvedWorker                   // no table is read, and no answer comes
	starvedLoads                    // they make no connections, and catch up afterwards
	starvedReader                   // no transition reaches the engine, but answers do, and it ticks
)

var starvedNames = [...]string{"loop", "worker", "loads", "reader"}

func (s *simStall) String() string {
	return fmt.Sprintf("the %s starve from %v to %v", starvedNames[s.of], s.from-time.Hour, s.until-time.Hour)
}

// simStalls are all stalls of a simulation.
type simStalls []simStall

// has reports whether something starves at a time.
func (l simStalls) has(of simStarved, at time.Duration) bool {
	for i := range l {
		if l[i].of == of && l[i].from <= at && at < l[i].until {
			return true
		}
	}
	return false
}

// length is the length of the stalls together that began before a time and ended less than a while before it.
func (l simStalls) length(of simStarved, at, while time.Duration) (sum time.Duration) {
	for i := range l {
		if s := &l[i]; s.of == of && s.from <= at && at < s.until+while {
			sum += s.until - s.from
		}
	}
	return sum
}

// readableFrom is when the engine can get a table again: at this time, or at the end of the stalls that it falls into.
func (l simStalls) readableFrom(at time.Duration) time.Duration {
	for starves := true; starves; {
		starves = false
		for i := range l {
			if s := &l[i]; (s.of == starvedWorker || s.of == starvedLoop) && s.from <= at && at < s.until {
				at, starves = s.until, true
			}
		}
	}
	return at
}

// addStalls draws from a source of its own, so that the other parts of a simulation are what its seed has always made.
func (r *simRun) addStalls(always bool) {
	random := rand.New(rand.NewPCG(r.seed, 17))
	if random.IntN(5) > 0 && !always {
		return
	}
	for range 1 + random.IntN(5) {
		s := simStall{of: simStarved(random.IntN(len(starvedNames))), from: r.k.now + simStep*time.Duration(random.IntN(1800))}
		s.until = s.from + simStep*time.Duration([]int{3 + random.IntN(8), 10 + random.IntN(30), 30 + random.IntN(100)}[random.IntN(3)])
		r.tr.stalls = append(r.tr.stalls, s)
	}
	r.tr.seedParts = 1 + random.IntN(5)
	r.tr.seedPause = simStep * time.Duration(random.IntN(20))
	if len(r.restarts) == 0 && random.IntN(2) == 0 {
		for _, l := range r.loads {
			if l.binds {
				return // see addEvents
			}
		}
		r.restarts[r.k.now+simStep*time.Duration(100+random.IntN(1400))] = true
	}
	for at := range r.restarts {
		if random.IntN(3) > 0 { // the ring buffer overflows until the first reading
			l := simLoss{from: at, until: at + simStep*time.Duration(1+random.IntN(30)), share: 0.05 + 0.9*random.Float64(), kinds: [5]bool{true, true, true, true, true}}
			r.tr.lossy = append(r.tr.lossy, l)
		}
	}
}

// remembered is how long after a stall the engine may be behind by its length: alerts of some kinds need two tables.
const remembered = 30 * time.Second

// lag is how long transitions take to reach the engine, now or lately.
func (o *simOracle) lag() time.Duration {
	now, stalls := o.r.k.now, o.r.tr.stalls
	return o.r.tr.lag + stalls.length(starvedLoop, now, remembered) + stalls.length(starvedReader, now, remembered)
}

// starves reports whether the engine may lack what has happened, because it or its worker starves or has starved lately.
func (o *simOracle) starves() bool {
	now, stalls := o.r.k.now, o.r.tr.stalls
	return stalls.length(starvedLoop, now, 3*time.Second)+stalls.length(starvedWorker, now, 3*time.Second)+
		stalls.length(starvedReader, now, 3*time.Second) > 0
}

// Starved runs: no alert is false, missed or wrong.
func TestSimulation_Starved(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		r := newSimRunWith(seed+1, false, true)
		if r.run(); len(r.oracle.faults) > 0 {
			t.Errorf("seed %d (-starved): %s%s", seed+1, r.describe(), r.oracle.faults)
		}
	}
}
