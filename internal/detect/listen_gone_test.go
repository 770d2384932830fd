package detect

import (
	"testing"
	"time"
)

// An alert closes half a minute after its namespace has gone. Where only the reader gets no CPU, and there is no answer
// at all, it stays open for longer.
func TestListenQueue_NamespaceGone(t *testing.T) {
	for _, answers := range []bool{true, false} {
		h := newHost(t, 500, Config{})
		h.serve(h.listen(web, 128, webServer), time.Minute, 40, nil)
		h.theOnly("listen_queue_full")
		began := h.now
		if h.listening.gone = true; answers {
			h.pass(90 * time.Second)
		} else {
			h.passUnanswered(90 * time.Second)
		}
		closed := only(h.alerts, "listen_queue_full", Close)
		if len(closed) != 1 {
			t.Fatalf("answers %v: %v", answers, h.phases())
		}
		if after := closed[0].Monotonic - began; answers && (after < 25*time.Second || after > 35*time.Second) || !answers && after < time.Minute {
			t.Errorf("answers %v: it closes after %v", answers, after)
		}
	}
}

// passUnanswered advances the clock. No request of the engine gets an answer.
func (h *host) passUnanswered(d time.Duration) {
	for end := h.now + d; h.now < end; {
		h.now += 40 * time.Millisecond
		h.ticked = h.now
		for _, a := range h.engine.Tick(h.now) {
			h.take(a)
		}
		h.engine.Requests(h.now)
	}
}
