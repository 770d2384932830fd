package process

import (
	"slices"
	"sync"

	"github.com/tcpshift/tcpshift/internal/detect/topk"
)

// waiting are the requests that wait. A user may have at most as many as are free, and the users take
// turns: the short processes of one user do not keep those of another from being read while they live.
type waiting struct {
	ready chan struct{} // has a value if there may be requests

	mu     sync.Mutex // never locked during a system call
	total  int
	byUser map[uint32][]Request // by topk.QuotaOf; none is empty
	turns  []uint32             // the keys of byUser; the first one is next
}

func newWaiting() waiting {
	return waiting{ready: make(chan struct{}, 1), byUser: make(map[uint32][]Request)}
}

// add adds a request, unless there is no room for it.
func (w *waiting) add(q Request) bool {
	user := topk.QuotaOf(q.UID)
	w.mu.Lock()
	defer w.mu.Unlock()
	own := w.byUser[user]
	if len(own) >= maxWaiting-w.total {
		return false
	}
	if len(own) == 0 {
		w.turns = append(w.turns, user)
	}
	w.byUser[user] = append(own, q)
	w.total++
	w.notify()
	return true
}

// take takes the next request. It reports false if there is none.
func (w *waiting) take() (q Request, found bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.total == 0 {
		return q, false
	}
	user := w.turns[0]
	own := w.byUser[user]
	q, w.turns = own[0], slices.Delete(w.turns, 0, 1)
	w.total--
	if len(own) == 1 {
		delete(w.byUser, user)
	} else {
		w.byUser[user] = own[1:]
		w.turns = append(w.turns, user)
	}
	if w.total > 0 {
		w.notify()
	}
	return q, true
}

func (w *waiting) notify() {
	select {
	case w.ready <- struct{}{}:
	default:
	}
}
