package detection_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"
)

// pace says whether a storm was as even as it was ordered to be. What an alert says
// about time can be held against the truth only then: a machine that stands still for
// a while makes a pause, and then a gust, which nobody could have foreseen.
type pace struct {
	mu      sync.Mutex
	late    time.Duration // the most that anything came behind its time
	allowed time.Duration
	wrong   []string // what is wrong, if the pace was kept
	end     context.CancelFunc
	ended   sync.WaitGroup
}

// watch measures how long this process, too, is kept waiting for a processor.
func (p *pace) watch() {
	const nap = 5 * time.Millisecond
	ctx, end := context.WithCancel(context.Background())
	p.end = end
	p.ended.Go(func() {
		for ctx.Err() == nil {
			due := time.Now().Add(nap)
			time.Sleep(nap)
			p.fellBehind(time.Since(due))
		}
	})
}

func (p *pace) fellBehind(by time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.late = max(p.late, by)
}

// within: what is to be judged happened in so many seconds, and a twentieth of that
// is too short a pause to matter.
func (p *pace) within(seconds float64) {
	p.allowed = time.Duration(seconds * float64(time.Second) / 20)
}

func (p *pace) untimely(format string, args ...any) {
	p.wrong = append(p.wrong, fmt.Sprintf(format, args...))
}

func (p *pace) stop() {
	p.end()
	p.ended.Wait()
}

// kept is asked last.
func (p *pace) kept() bool {
	p.stop()
	return p.late <= p.allowed
}

// whileThePaceIsKept judges a storm by its times, if it was an even one, and has another
// one blow otherwise. After the third it says that nothing was to be judged.
func whileThePaceIsKept(t *testing.T, blow func() *scene) {
	const attempts = 3
	for n := 1; ; n++ {
		p := &blow().pace
		kept := p.kept()
		for _, what := range p.wrong {
			if kept {
				t.Error(what)
			} else {
				t.Logf("%s, but something was late by %v", what, p.late)
			}
		}
		switch {
		case kept || len(p.wrong) == 0 || t.Failed():
			return
		case n == attempts:
			t.Skipf("this machine stood still in each of %d storms, the last time for %v: what the alert says about time was not judged", n, p.late)
		}
	}
}

func secondsOf(v *float64) string {
	if v == nil {
		return "none"
	}
	return fmt.Sprintf("%.2f s", *v)
}
