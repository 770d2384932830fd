package monitor

import (
	"testing"

	"github.com/tcpshift/tcpshift/internal/detect"
)

// A flood of namespaces does not make the queue grow without bound, and the busiest are not
// dropped.
func TestRequestQueue_Bounded(t *testing.T) {
	q := newRequestQueue()
	busy := detect.Request{Netns: 7, Transitions: 1000}
	q.put(busy)
	for n := range uint32(2 * maxRequests) {
		q.put(detect.Request{Netns: 100 + n, Transitions: 1 + uint64(n%5)})
	}
	if len(q.list) != maxRequests {
		t.Errorf("%d requests wait, want %d", len(q.list), maxRequests)
	}
	if first, ok := q.take(); !ok || first.Netns != busy.Netns {
		t.Errorf("the first is %+v, %v", first, ok)
	}
}
