package monitor

import (
	"slices"
	"sync"

	"github.com/tcpshift/tcpshift/internal/detect"
)

// maxRequests bounds the requests that wait. The engine has fewer namespaces at a time, but a flood
// of short-lived ones replaces them.
const maxRequests = 4096

// requestQueue has the requests that the worker has not seen: at most one for each namespace.
// Beyond maxRequests the one with the fewest transitions is dropped; the engine asks again.
// It is safe for concurrent use.
type requestQueue struct {
	ready chan struct{} // has a value if there may be requests

	mu     sync.Mutex
	list   []detect.Request // oldest first
	oldest bool             // the next one that take returns is the oldest, not the busiest
}

func newRequestQueue() *requestQueue {
	return &requestQueue{ready: make(chan struct{}, 1)}
}

// put adds a request, or joins it with the one for the same namespace that still waits.
func (q *requestQueue) put(request detect.Request) {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.IndexFunc(q.list, func(r detect.Request) bool { return r.Netns == request.Netns })
	if i >= 0 {
		q.list[i] = joined(q.list[i], request)
	} else {
		q.list = append(q.list, request)
		q.dropBeyond(maxRequests)
	}
	q.signal()
}

func (q *requestQueue) dropBeyond(limit int) {
	if len(q.list) <= limit {
		return
	}
	least := 0
	for i := range q.list {
		if q.list[i].Transitions < q.list[least].Transitions {
			least = i
		}
	}
	q.list = slices.Delete(q.list, least, least+1)
}

// take removes and returns a request: by turns that of the namespace with the most transitions,
// whose limits matter most, and the oldest, so that none waits for ever.
func (q *requestQueue) take() (request detect.Request, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.list) == 0 {
		return detect.Request{}, false
	}
	next := 0
	for i := range q.list {
		if !q.oldest && q.list[i].Transitions > q.list[next].Transitions {
			next = i
		}
	}
	request, q.oldest = q.list[next], !q.oldest
	q.list = slices.Delete(q.list, next, next+1)
	if len(q.list) > 0 {
		q.signal()
	}
	return request, true
}

func (q *requestQueue) signal() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}
