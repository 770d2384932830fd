// Package workload finds the names of containers and pods by their ids: it reads the files that
// the kubelet and the container engines keep on the node: [Resolver] in the background, [Once] at once.
//
// It must not ask an API server or an engine, which costs privileges and can hang, and must not
// guess: what no file says is empty. The files belong to root, but their contents come from the
// users of the engine: sizes are bounded, and names may hold any bytes.
package workload

import (
	"sync"
	"time"

	"github.com/tcpshift/tcpshift/internal/cgroup"
	"github.com/tcpshift/tcpshift/internal/mailbox"
)

const (
	// maxWaiting bounds the requests that wait, of cgroups. Those beyond it stay without names.
	maxWaiting = 1024
	// maxKnown bounds the answers that are kept, of containers and pods, in each of two generations.
	maxKnown = 4096
	// unknownFor is how long no file is read again for a container that no file names.
	unknownFor = 10 * time.Minute
)

// retryAfter are the times between the looks for one container: a file may come after the
// container's first connection.
var retryAfter = []time.Duration{time.Second, 5 * time.Second, 30 * time.Second}

// Key is a container, or a pod if Container is empty. Runtime is the engine of the container, as in
// [cgroup.Info]; empty: not known.
type Key struct{ Container, PodUID, Runtime string }

// keyOf returns what runs in a cgroup. It reports false if no container or pod is known, or if a user other
// than root may have chosen its id: the names would be those of another.
func keyOf(info *cgroup.Info) (k Key, ok bool) {
	if info.Container == "" && info.PodUID == "" || info.ContainerClaimed {
		return k, false
	}
	return Key{info.Container, info.PodUID, info.Runtime}, true
}

// Answer are the names for a cgroup.
type Answer struct {
	CgroupID uint64
	Key      Key
	Names    cgroup.Names
}

// Resolver answers requests in a goroutine of its own, which exists only while there is
// something to find. Its methods do not wait for it. It does not notify the caller of answers: the
// caller calls Answers from time to time.
type Resolver struct {
	lookup  func(Key) (cgroup.Names, bool)
	retries []time.Duration

	answers mailbox.Box[Answer]
	mu      sync.Mutex
	waiting []request
	running bool
	closed  chan struct{}
	wake    chan struct{} // a request has come

	young, aged map[Key]known // used by the goroutine only, or under mu while none runs
}

type request struct {
	id    uint64
	key   Key
	tries int
	due   time.Time // zero: at once
}

type known struct {
	names cgroup.Names
	until time.Time // when an unknown container may be looked for again; zero: it is known
}

// New returns a Resolver that reads the node's files.
func New() *Resolver { return newResolver(Files{Root: "/"}.Lookup, retryAfter) }

func newResolver(lookup func(Key) (cgroup.Names, bool), retries []time.Duration) *Resolver {
	return &Resolver{lookup: lookup, retries: retries, closed: make(chan struct{}), wake: make(chan struct{}, 1), young: make(map[Key]known), aged: make(map[Key]known)}
}

// Request asks for the names of what runs in a cgroup. It asks nothing if no container or pod is
// known, or if a user other than root may have chosen its id: the names would be those of another. It
// drops the request if 1024 requests wait already.
func (r *Resolver) Request(id uint64, info *cgroup.Info) {
	key, ok := keyOf(info)
	if !ok {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.waiting) >= maxWaiting {
		return
	}
	r.waiting = append(r.waiting, request{id: id, key: key})
	if !r.running {
		r.running = true
		go r.run()
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Answers returns the answers since the last call. A request whose names no file has gets no answer.
func (r *Resolver) Answers() []Answer { return r.answers.Take() }

// Close ends the goroutine once no request is due. It does not wait for that. It must be called once.
func (r *Resolver) Close() { close(r.closed) }

// run answers requests until none waits or Close is called.
func (r *Resolver) run() {
	for {
		next, wait, found := r.next()
		if !found {
			return
		}
		if wait == 0 {
			r.answer(next)
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-r.closed:
			return
		case <-timer.C:
		case <-r.wake: // a request that may be due before next
		}
		timer.Stop()
		r.requeue(next)
	}
}

// next takes the request that is due first, and returns how long it still has to wait. If there is none, it
// notes that the goroutine ends.
func (r *Resolver) next() (first request, wait time.Duration, found bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.waiting) == 0 {
		r.running = false
		return first, 0, false
	}
	at := 0
	for i := range r.waiting {
		if r.waiting[i].due.Before(r.waiting[at].due) {
			at = i
		}
	}
	first = r.waiting[at]
	r.waiting = append(r.waiting[:at], r.waiting[at+1:]...)
	return first, max(0, time.Until(first.due)), true
}

// requeue puts a request back.
func (r *Resolver) requeue(q request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = append(r.waiting, q)
}

// answer looks for the names, and puts the request back if it is too early for an answer.
func (r *Resolver) answer(q request) {
	names, found, isUnknown := r.find(q.key)
	switch {
	case isUnknown:
	case found:
		r.answers.Put(Answer{q.id, q.key, names})
	case q.tries < len(r.retries):
		q.due = time.Now().Add(r.retries[q.tries])
		q.tries++
		r.requeue(q)
	default:
		r.keep(q.key, known{until: time.Now().Add(unknownFor)})
	}
}

// find looks into the cache, and then into the files. A container that is known stays so after
// its files are gone. isUnknown means that no file named it lately: none is read again until unknownFor is over.
func (r *Resolver) find(key Key) (names cgroup.Names, found, isUnknown bool) {
	k, cached := r.young[key]
	if !cached {
		if k, cached = r.aged[key]; cached {
			r.keep(key, k)
		}
	}
	if cached && k.until.IsZero() {
		return k.names, true, false
	}
	if cached && time.Now().Before(k.until) {
		return names, false, true
	}
	if names, found = r.lookup(key); found {
		r.keep(key, known{names: names})
	}
	return names, found, false
}

// keep stores an answer in the young generation. If that is full, it becomes the aged one, and the answers
// that are aged until then are dropped.
func (r *Resolver) keep(key Key, k known) {
	if len(r.young) >= maxKnown {
		r.young, r.aged = r.aged, r.young
		clear(r.young)
	}
	r.young[key] = k
}
