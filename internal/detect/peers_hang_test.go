package detect

import (
	"slices"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// While peers hang, none closes, and the sockets in FIN_WAIT2 time out. When they answer again each
// connection leaves a TIME_WAIT of a minute, and a storm begins: its alert comes long before the first connect() fails.
func TestStorm_PeersThatHungAtFirst(t *testing.T) {
	for _, hang := range []time.Duration{11 * time.Second, 14 * time.Second, 18 * time.Second, 40 * time.Second} {
		t.Run(hang.String(), func(t *testing.T) {
			t.Parallel()
			h := newHost(t, 250, Config{})
			h.limits.FinTimeout = 10 * time.Second
			h.finAfter = time.Millisecond
			key, began := to(80), h.now
			for h.now-began < 150*time.Second && h.failed == 0 {
				h.pass(time.Second / 6)
				if !h.connect(key, process(99, "java")) {
					break
				}
				h.open[key]--
				h.emit(key, h.limits.PortLow, process(99, "java"), tcp.FinWait2, tcp.TimeWait)
				finAt := max(h.now+20*time.Millisecond, began+hang)
				w := timewait{created: h.now, finAt: finAt, end: finAt + time.Minute}
				if finAt-h.now >= h.limits.FinTimeout {
					w.finAt, w.end = h.now+time.Hour, h.now+h.limits.FinTimeout
				}
				h.ends[key] = append(h.ends[key], w)
				slices.SortStableFunc(h.ends[key], func(a, b timewait) int { return int(a.end - b.end) })
			}
			opened := only(h.alerts, timeWaitStorm, Open)
			if h.failed == 0 || len(opened) == 0 || h.failed-opened[0].Monotonic < 10*time.Second {
				t.Errorf("the first connect() fails after %v; alerts: %+v", h.failed-began, opened)
			}
		})
	}
}
