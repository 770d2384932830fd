package ring

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/boottime"
)

// While the reader is awake, the kernel sees a position one record behind its own, so that no program
// wakes it. A sleep shows the true position.
func TestSleep_ShowsPosition(t *testing.T) {
	w, priority := newWriter(t), newWriter(t)
	r := newReader(t, w, priority)
	if err := r.wakes.open(); err != nil {
		t.Fatal(err)
	}
	var all []int
	began := boottime.Now() - time.Second
	for n := range time.Duration(3) {
		all = append(all, w.position)
		w.reserve(sampleAt(began+n, "sample"))()
	}
	shown := func() int { return int(atomic.LoadUint64(r.rings[0].consumer)) }
	r.expect(t, "three samples", sampleAt(began, "sample"), sampleAt(began+1, "sample"), sampleAt(began+2, "sample"))
	if got := shown(); got != all[2] {
		t.Errorf("awake, the reader shows the position %d, want %d, where the last sample begins", got, all[2])
	}
	if woken, err := r.Sleep(time.Millisecond); woken || err != nil {
		t.Errorf("the sleep beside an empty ring: woken %v, %v", woken, err)
	}
	if got := shown(); got != w.position {
		t.Errorf("asleep, the reader shows the position %d, want %d, the end", got, w.position)
	}
	submit := w.reserve(sampleAt(began+3, "busy"))
	if woken, err := r.Sleep(time.Hour); !woken || err != nil {
		t.Errorf("the sleep beside a record that is not submitted: woken %v, %v", woken, err)
	}
	submit()
	r.expect(t, "after the sleep", sampleAt(began+3, "busy"))
}
