package detect

import (
	"math/rand/v2"
	"testing"
	"time"
)

// Keys that share a place, take over an entry, or come back after a sweep must each lead
// to what is kept of them.
func TestAKeyLeadsToItsOwnEntryWhateverCameBefore(t *testing.T) {
	random := rand.New(rand.NewPCG(11, 12))
	h := newHeavy[uint32, int](8)
	for range 100_000 {
		key := random.Uint32N(12)
		spread := key % 3
		switch random.IntN(8) {
		case 0:
			h.sweep(func(*entry[uint32, int]) bool { return random.IntN(4) > 0 })
		case 1, 2:
			if got, want := h.find(spread, &key), h.index[key]; got != want {
				t.Fatalf("found %+v for %d, want %+v", got, key, want)
			}
		default:
			e := h.keep(spread, &key)
			if e.key != key || h.index[key] != e {
				t.Fatalf("kept %+v for %d, want %+v", e, key, h.index[key])
			}
			h.weigh(e, e.weight+1+random.Uint64N(3))
		}
	}
}

func TestALeakIsTheOneOfItsOwnerWhateverCameBefore(t *testing.T) {
	random := rand.New(rand.NewPCG(13, 14))
	d := newCloseWaitLeak(newWorld(Config{}.withDefaults())).(*closeWaitLeak)
	for range 10_000 {
		key := leakKey{netns: random.Uint32N(2), pid: random.Uint32N(3) * uint32(len(d.recent))}
		l := d.leakOf(&key)
		if l.key != key || d.owners[key] != l {
			t.Fatalf("%+v is the leak of %+v, want %+v", l, key, d.owners[key])
		}
		l.last = d.now
		d.now += d.Stuck * []time.Duration{0, 1, 3}[random.IntN(3)]
		d.check(func(any, bool, func() Finding) {}) // drops those that are long over
	}
}
