package detect

import (
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// A socket that leaves CLOSE_WAIT before the next tick leaves nothing behind, also if another one has taken its place.
// Those that stay wait, each once, and the oldest first.
func TestYoungSockets(t *testing.T) {
	const count = 3 << youngBits
	d := newCloseWaitLeak(newTracker(Config{}.withDefaults())).(*closeWaitLeak)
	step := func(cookie uint64, old, next tcp.State) {
		d.observe(&tcp.Transition{
			Cookie: cookie, Owner: process(uint32(cookie%7+1), "x"), Old: old, New: next, Monotonic: time.Hour + time.Duration(cookie)*time.Millisecond,
		})
	}
	for n := range uint64(count) {
		step(n+1, tcp.Established, tcp.CloseWait)
		step(n+1, tcp.CloseWait, tcp.LastAck)
	}
	d.moveYoung()
	if len(d.waiting) > 0 || len(d.leaks) > 0 || len(d.queue) > 0 {
		t.Fatalf("sockets that are gone: %d wait, %d leaks, %d in the queue", len(d.waiting), len(d.leaks), len(d.queue))
	}
	for n := range uint64(count) {
		step(n+1, tcp.Established, tcp.CloseWait)
	}
	for n := uint64(1); n < count; n += 2 {
		step(n+1, tcp.CloseWait, tcp.LastAck)
	}
	d.moveYoung()
	d.moveYoung()
	if len(d.waiting) != count/2 || d.young.count != 0 {
		t.Errorf("%d wait and %d are young, want %d and 0", len(d.waiting), d.young.count, count/2)
	}
	sockets := 0
	for _, l := range d.leaks {
		sockets += l.sockets
	}
	if sockets != count/2 {
		t.Errorf("%d sockets count for their leaks, want %d", sockets, count/2)
	}
	for i := 1; i < len(d.queue); i++ {
		if d.queue[i].at < d.queue[i-1].at {
			t.Fatalf("in the queue %v comes after %v", d.queue[i].at, d.queue[i-1].at)
		}
	}
	d.queue = nil
	for _, cookie := range []uint64{30, 10, 20} {
		step(9000-cookie, tcp.Established, tcp.CloseWait)
	}
	d.moveYoung()
	if len(d.queue) != 3 || d.queue[0].cookie != 8970 || d.queue[1].cookie != 8980 || d.queue[2].cookie != 8990 {
		t.Errorf("in the queue are %+v, want the oldest first", d.queue)
	}
}
