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

// Timewait sockets in FIN_WAIT2 whose peers never close end after tcp_fin_timeout, those that are
// taken from now on as well; and of those that the kernel does not have, no more will stay.
func TestEstimator_PlateauOfEachKind(t *testing.T) {
	const perSecond = 100
	for _, tt := range []struct {
		name  string
		kind  Kind
		model TimeWaitModel
		want  float64
	}{
		{"peers that never close", Kind{FinWait2: true, Timestamp: true}, TimeWaitModel{FinWait2Hold: 10 * time.Second, Scale: 1}, 1000},
		{"half of them close", Kind{FinWait2: true, Timestamp: true}, TimeWaitModel{FinWait2Hold: 10 * time.Second, FinFraction: 0.5, Scale: 1}, 3550},
		{"all close", Kind{FinWait2: true, Timestamp: true}, TimeWaitModel{FinWait2Hold: 10 * time.Second, FinFraction: 1, Scale: 1}, 6100},
		{"TIME_WAITs", Kind{Timestamp: true}, TimeWaitModel{FinWait2Hold: 10 * time.Second, Scale: 1}, 6100},
		{"half as many by the kernel's count", Kind{Timestamp: true}, TimeWaitModel{FinWait2Hold: 10 * time.Second, FinFraction: 1, Scale: 0.5}, 3050},
		{"taken over", Kind{Timestamp: true}, TimeWaitModel{FinWait2Hold: 10 * time.Second, FinFraction: 1, Scale: 1, ReuseAfter: time.Second}, 100},
		{"taken over, but the peers close late", Kind{FinWait2: true, Timestamp: true},
			TimeWaitModel{FinWait2Hold: time.Minute, FinFraction: 1, Scale: 1, ReuseAfter: time.Second, FinDelay: 4 * time.Second}, 500},
		{"taken over, and only the peers of others close late", Kind{Timestamp: true},
			TimeWaitModel{FinWait2Hold: time.Minute, FinFraction: 1, Scale: 1, ReuseAfter: time.Second, FinDelay: 4 * time.Second}, 100},
		{"not taken over before the peer closes", Kind{FinWait2: true, Timestamp: true},
			TimeWaitModel{FinWait2Hold: 10 * time.Second, Scale: 1, ReuseAfter: time.Second}, 1000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.model.Hold = TimeWaitHold
			var e Estimator
			now := time.Hour
			for range 20 * perSecond {
				now += time.Second / perSecond
				e.Opened(now)
				e.ClosedToTimeWait(now, tt.kind)
			}
			if got := e.Plateau(perSecond, tt.model); got < 0.98*tt.want || got > 1.02*tt.want {
				t.Errorf("the plateau is %.0f, want %.0f", got, tt.want)
			}
			for share, want := range map[float64]bool{0.9: true, 1.15: false} {
				capacity := share*tt.want + 1
				if in, exhausts := e.Exhaustion(perSecond, tt.model, capacity); exhausts != want {
					t.Errorf("a capacity of %.0f, with a plateau of %.0f, is exhausted: %v in %v", capacity, tt.want, exhausts, in)
				}
			}
		})
	}
}
