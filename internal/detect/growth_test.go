package detect

import (
	"testing"
	"time"
)

// A count that grows evenly is seen to grow at its rate, from twenty a second to one an
// hour; and one that came at once, or stays as it is, is not.
func TestGrowth_AnyRate(t *testing.T) {
	for _, every := range []time.Duration{50 * time.Millisecond, time.Second, 40 * time.Second, 10 * time.Minute, time.Hour, 5 * time.Hour} {
		now := 1000 * time.Hour
		g := newGrowth(now)
		for range 32 {
			now += every
			g.advance(now)
			g.add(now)
		}
		if per := g.perSecond(now) * every.Seconds(); !g.grows() || per < 0.6 || per > 1.7 {
			t.Errorf("one every %v: grows is %v, the rate %.2f of the true one", every, g.grows(), per)
		}
		now += 100 * every
		g.advance(now)
		if per := g.perSecond(now) * every.Seconds(); per > 0.05 {
			t.Errorf("one every %v, and then none: the rate is %.2f of what it was", every, per)
		}
	}
	now := 1000 * time.Hour
	g := newGrowth(now)
	g.advance(now)
	for range 1000 {
		g.add(now)
	}
	for at := time.Duration(0); at < 20*24*time.Hour; at += 10 * time.Second {
		g.advance(now + at)
		if g.grows() && at > 31*time.Second {
			t.Fatalf("what came at once still grows %v later", at)
		}
	}
}

// What was there before counting began is no growth, and makes later growth no faster.
func TestGrowth_Earlier(t *testing.T) {
	now := 1000 * time.Hour
	g := newGrowth(now)
	g.advance(now)
	for range 100 {
		g.addEarlier()
	}
	if g.grows() {
		t.Error("it grows")
	}
	for n := range 30 {
		now += time.Second
		g.advance(now)
		g.add(now)
		if g.grows() != (n >= 24) {
			t.Errorf("with %d more than 100: grows is %v", n+1, g.grows())
		}
	}
	if rate := g.perSecond(now); rate < 0.8 || rate > 1.3 {
		t.Errorf("the rate is %.2f", rate)
	}
}

// What was there before and comes and goes does not hide the growth of the rest.
func TestGrowth_EarlierThatGoes(t *testing.T) {
	now := 1000 * time.Hour
	g := newGrowth(now)
	g.advance(now)
	for range 50 {
		for range 20 {
			g.addEarlier()
		}
		for range 20 {
			g.removeEarlier()
		}
	}
	for range 10 {
		now += time.Second
		g.advance(now)
		g.add(now)
	}
	if !g.grows() || g.count != 10 {
		t.Errorf("%d, and grows is %v", g.count, g.grows())
	}
	if rate := g.perSecond(now); rate < 0.7 || rate > 1.3 {
		t.Errorf("the rate is %.2f, want 1", rate)
	}
}
