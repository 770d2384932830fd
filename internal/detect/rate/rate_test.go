package rate

import (
	"math/rand/v2"
	"testing"
	"time"
)

// A Counter gives the sums of the newest slots, whatever the distance between events.
func TestCounter_SumsOfNewestSlots(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var c Counter
	truth := make(map[int64]int64)
	now := int64(1000)
	for range 10_000 {
		now += random.Int64N(4) * random.Int64N(30)
		c.Advance(now)
		n := int32(random.IntN(5)) - 1
		c.Add(n)
		truth[now] += int64(n)
		past := now - random.Int64N(80)
		c.AddAt(past, 1)
		if past > now-slots {
			truth[past]++
		}
		skip, count := random.IntN(70), random.IntN(70)
		var want int64
		for slot := now - int64(skip); slot > now-int64(skip+count) && slot > now-slots; slot-- {
			want += truth[slot]
		}
		if got := c.Sum(skip, count); got != want {
			t.Fatalf("the sum of %d slots after %d is %d, want %d", count, skip, got, want)
		}
	}
}

// A rate whose plateau, rate times hold, is below the capacity never exhausts it; a rate
// above does so within one hold.
func TestEstimator_Plateau(t *testing.T) {
	const capacity, hold = 28232, 61
	model := TimeWaitModel{Hold: TimeWaitHold, FinWait2Hold: time.Minute, FinFraction: 1, Scale: 1}
	for _, tt := range []struct {
		rate     int
		exhausts bool
	}{{capacity / hold, false}, {capacity/hold + 1, true}, {2 * capacity / hold, true}} {
		var e Estimator
		begin := time.Hour
		e.Advance(begin)
		for second := range 20 {
			now := begin + time.Duration(second)*time.Second
			for range tt.rate {
				e.Opened(now)
				e.ClosedToTimeWait(now, Kind{Timestamp: true})
			}
		}
		in, exhausts := e.Exhaustion(float64(tt.rate), model, capacity)
		if exhausts != tt.exhausts {
			t.Errorf("at %d a second the capacity is exhausted: %v, want %v", tt.rate, exhausts, tt.exhausts)
		}
		if want := float64(capacity)/float64(tt.rate) - 20; exhausts && (in.Seconds() < want-1 || in.Seconds() > want+1) {
			t.Errorf("at %d a second the capacity is exhausted in %v, want %.1f s", tt.rate, in, want)
		}
	}
}
