// Package process finds out what /proc says of the processes that own sockets: when they started, what
// they execute, for whom. It reads in the background.
//
// It must not guess: what /proc does not say is empty, and a process that has ended is not found. It must
// not mix two processes that have had one pid. What it reads, others have chosen: sizes are bounded, and
// texts may hold any bytes. Arguments are returned without what may be a secret.
package process

import (
	"regexp"
	"sync/atomic"
	"time"

	"github.com/tcpshift/tcpshift/internal/mailbox"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

const (
	// maxWaiting bounds the requests that wait.
	maxWaiting = 1024
	// After each process the goroutine pauses for pauseFactor times what it took, so that reading
	// takes a twentieth of one CPU at most. longestPause shortens the pause after a read of more
	// than a millisecond, which has mostly waited.
	pauseFactor  = 20
	longestPause = 20 * time.Millisecond
)

// Request asks for the process that had the pid PID at the time At.
type Request struct {
	PID    uint32        // in the initial pid namespace
	UID    uint32        // of a user who has the process named: on whose account the request waits
	At     time.Duration // CLOCK_BOOTTIME
	Serial uint64        // comes back with the answer
}

// Answer is what was found. Process lacks what the events have: its Comm and its Cgroup. It also lacks
// Started, the wall-clock time.
type Answer struct {
	Request Request
	Found   bool // false: /proc has no process with this pid that had started by then
	Process tcp.Process
}

// Resolver answers requests in a goroutine of its own. Its methods do not wait for it, except Finish.
type Resolver struct {
	read    func(pid uint32, at time.Duration) (tcp.Process, bool)
	waiting waiting
	closed  chan struct{}
	notify  atomic.Pointer[func()]

	pending atomic.Int64  // requests that are not answered
	idle    chan struct{} // gets a value when none is pending
	answers mailbox.Box[Answer]
}

// New starts a Resolver. args makes it read the arguments of processes, in which it replaces what may be a secret and
// what the patterns match.
func New(args bool, patterns []*regexp.Regexp) *Resolver {
	r := reader{proc: "/proc", users: &users{path: "/etc/passwd"}}
	if args {
		r.args = &argsReader{patterns: patterns}
	}
	return newResolver(r.read)
}

func newResolver(read func(uint32, time.Duration) (tcp.Process, bool)) *Resolver {
	r := &Resolver{read: read, waiting: newWaiting(), closed: make(chan struct{}), idle: make(chan struct{}, 1)}
	go r.run()
	return r
}

// NotifyAnswers sets a function that another goroutine calls after each answer.
func (r *Resolver) NotifyAnswers(wake func()) { r.notify.Store(&wake) }

// Request asks for a process. It reports false if too many requests wait, of the user or in all.
func (r *Resolver) Request(q Request) bool {
	r.pending.Add(1)
	if !r.waiting.add(q) {
		r.pending.Add(-1)
		return false
	}
	return true
}

// Answers returns the answers since the last call.
func (r *Resolver) Answers() []Answer { return r.answers.Take() }

// Finish returns what Answers would return once all requests are answered. It waits for that, but no
// longer than limit.
func (r *Resolver) Finish(limit time.Duration) []Answer {
	for timeout := time.After(limit); r.pending.Load() > 0; {
		select {
		case <-r.idle:
		case <-timeout:
			return r.Answers()
		}
	}
	return r.Answers()
}

// Close ends the goroutine after the process that it reads. It does not wait for that. It must be called
// once.
func (r *Resolver) Close() { close(r.closed) }

func (r *Resolver) run() {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-r.closed:
			return
		case <-r.waiting.ready:
			q, found := r.waiting.take()
			if !found {
				continue
			}
			began := time.Now()
			p, found := r.read(q.PID, q.At)
			r.answer(Answer{q, found, p})
			pause.Reset(min(longestPause, pauseFactor*time.Since(began)))
		}
		select {
		case <-r.closed:
			return
		case <-pause.C:
		}
	}
}

func (r *Resolver) answer(a Answer) {
	r.answers.Put(a)
	if r.pending.Add(-1) == 0 {
		select {
		case r.idle <- struct{}{}:
		default:
		}
	}
	if notify := r.notify.Load(); notify != nil {
		(*notify)()
	}
}
