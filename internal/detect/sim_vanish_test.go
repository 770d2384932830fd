package detect

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// addVanish lets the namespace vanish, often while its loads still run. It draws from a source of its own, so that the other
// parts of a simulation are what its seed has always made.
func (r *simRun) addVanish() {
	random := rand.New(rand.NewPCG(r.seed, 18))
	r.vanishes = true
	r.end = min(r.end, r.k.now+simStep*time.Duration(300+random.IntN(1500)))
	for _, l := range r.loads {
		l.until = min(l.until, r.end)
	}
}

// vanish takes the namespace away. Its processes have ended before that. No transition shows the end of what they have left
// (inet_twsk_purge()), and from now on the namespace cannot be read.
func (r *simRun) vanish() {
	for _, s := range slices.Clone(r.k.sockets) {
		r.k.remove(s)
	}
	r.tr.vanished = true
}

// No alert about a namespace stays open when it has vanished.
func TestSimulation_Vanishing(t *testing.T) {
	t.Parallel()
	for seed := range uint64(100) {
		r := newSimRunWith(seed, false, false)
		if seed%8 != 1 {
			r.addVanish()
		}
		if r.run(); len(r.oracle.faults) > 0 {
			t.Errorf("seed %d: %s%s", seed, r.describe(), r.oracle.faults)
		}
	}
}
