package trace

import (
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/output"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// The sockets of outputs are left out by their cookie alone: an event of the same process with another
// cookie, and one without, have their records. Without own sockets all have.
func TestHandle_OwnSockets(t *testing.T) {
	for _, exclude := range []bool{true, false} {
		m := &fakeMonitor{}
		cfg := Config{Source: &fakeSource{}, Monitor: m, Outputs: []Output{{Sink: &discard{}, Encoder: record.NewNative(nil)}}}
		if exclude {
			cfg.OwnSockets = new(output.OwnSockets)
			cfg.OwnSockets.Add(7)
		}
		l := newLoop(cfg)
		if err := l.outs.start(time.Now()); err != nil {
			t.Fatal(err)
		}
		for i, cookie := range []uint64{7, 8, 0, 7 + 256} { // 256: the same place among the own ones
			before := m.seen
			if err := l.handle(event(112, 1, cookie, tcp.Close, tcp.SynSent)); err != nil {
				t.Fatal(err)
			}
			if left := m.seen == before; left != (exclude && i == 0) {
				t.Errorf("exclude %v, cookie %d: it is left out: %v", exclude, cookie, left)
			}
		}
	}
}
