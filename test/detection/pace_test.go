package detection_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"
)

// pace measures whether a storm had the even rate that the test wants. Only then can the
// test check the times of an alert: if the machine stalls, the storm has a pause and
// then a burst, which no forecast can predict.
type pace struct {
	mu      sync.Mutex
	late    time.Duration // the greatest delay of anything
	allowed time.Duration
	wrong   []string // timing errors, which fail the test only if the storm was even
	end     context.CancelFunc
	ended   sync.WaitGroup
}

// start measures, until stop, how long this process waits for a CPU.
func (p *pace) start() {
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

// within sets the time from the alert to exhaustion, in seconds. A stall of up to a
// twentieth of it is allowed.
func (p *pace) within(seconds float64) {
	p.allowed = time.Duration(seconds * float64(time.Second) / 20)
}

func (p *pace) timingError(format string, args ...any) {
	p.wrong = append(p.wrong, fmt.Sprintf(format, args...))
}

func (p *pace) stop() {
	p.end()
	p.ended.Wait()
}

// stopAndCheck stops the measurement and reports whether the storm was even.
func (p *pace) stopAndCheck() bool {
	p.stop()
	return p.late <= p.allowed
}

// retryIfUneven runs a storm and reports its timing errors if the storm was even.
// Otherwise it runs another storm. After the third uneven storm it skips the test.
func retryIfUneven(t *testing.T, run func() *hostPair) {
	const attempts = 3
	for n := 1; ; n++ {
		p := &run().pace
		even := p.stopAndCheck()
		for _, what := range p.wrong {
			if even {
				t.Error(what)
			} else {
				t.Logf("%s, but this machine stalled for %v", what, p.late)
			}
		}
		switch {
		case even || len(p.wrong) == 0 || t.Failed():
			return
		case n == attempts:
			t.Skipf("this machine stalled in each of %d storms, the last time for %v: the times of the alert were not checked", n, p.late)
		}
	}
}

func secondsOf(v *float64) string {
	if v == nil {
		return "none"
	}
	return fmt.Sprintf("%.2f s", *v)
}
