// Package monitor joins the detection engine with the host: a background goroutine, the
// worker, reads the limits and sockets of network namespaces that the engine requests.
// The package must not decide anything, nor delay the stream.
package monitor

import (
	"slices"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/monotonic"
	"github.com/tcpshift/tcpshift/internal/netns"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Monitor is an engine and its worker. Its methods are for one goroutine, the one that
// reads the stream. None of them blocks, or does I/O other than [isGone].
type Monitor struct {
	engine   *detect.Engine
	backlog  []detect.Request // for which there was no room in requests
	requests chan detect.Request
	answers  chan answer
	done     chan struct{}
	worker   worker
}

// answer passes what the worker has read to the engine. It runs on the engine's
// goroutine.
type answer func(e *detect.Engine, now time.Duration)

const (
	// queueSize bounds the requests that the worker has not seen, and the waiting answers.
	queueSize = 64
	// batchSize bounds the sockets in one answer while the engine is seeded. A namespace
	// may have millions.
	batchSize = 256
)

// New starts the worker. From now on the caller must pass every transition that matches f to
// Observe, and call Alerts several times a second. The caller must call Close. warn gets a message for
// the operator if the host cannot be read at all; it is called from another goroutine.
func New(c detect.Config, f filter.Filter, warn func(message string)) *Monitor {
	c.Gone = isGone
	m := &Monitor{
		engine:   detect.New(c, monotonic.Now()),
		requests: make(chan detect.Request, queueSize), answers: make(chan answer, queueSize),
		done: make(chan struct{}),
	}
	m.worker = worker{
		requests: m.requests, answers: m.answers, done: m.done, warn: warn, filter: f,
		search: netns.NewSearch(), waiting: make(map[uint32]detect.Request), bound: make(map[uint32]boundPorts),
	}
	go m.worker.run()
	return m
}

// Close makes the worker end, and does not wait for that. Finish may still be called.
func (m *Monitor) Close() {
	close(m.done)
}

// Observe passes one transition to the engine: see [detect.Engine.Observe].
func (m *Monitor) Observe(t *tcp.Transition) {
	m.engine.Observe(t)
}

// ResetDecided passes the end of a connection to the engine: see
// [detect.Engine.ResetDecided].
func (m *Monitor) ResetDecided(t *tcp.Transition) {
	m.engine.ResetDecided(t)
}

// AddLost reports that count transitions were lost before they reached the monitor.
func (m *Monitor) AddLost(count uint64) {
	m.engine.AddLost(monotonic.Now(), count)
}

// SeededAfter is how long after New the sockets that existed before had been read; 0: they
// have not.
func (m *Monitor) SeededAfter() time.Duration { return m.engine.SeededAfter() }

// AlertsSuppressed is how many causes have had no alert because too many alerts were open.
func (m *Monitor) AlertsSuppressed() uint64 { return m.engine.AlertsSuppressed() }

// Alerts returns the alerts to report now. It also passes requests of the engine to the
// worker, and answers of the worker to the engine.
func (m *Monitor) Alerts() []detect.Alert {
	m.applyAnswers()
	now := monotonic.Now()
	for _, request := range m.engine.Requests(now) {
		m.enqueue(request)
	}
	m.passRequests()
	return m.engine.Tick(now)
}

// enqueue adds a request, or joins it with one for the same namespace that still waits. So
// the backlog has at most one request for each namespace that the engine knows.
func (m *Monitor) enqueue(request detect.Request) {
	same := func(r detect.Request) bool { return r.Netns == request.Netns }
	if i := slices.IndexFunc(m.backlog, same); i >= 0 {
		m.backlog[i] = joined(m.backlog[i], request)
		return
	}
	m.backlog = append(m.backlog, request)
}

// joined asks for what a or b asks for, of their namespace.
func joined(a, b detect.Request) detect.Request {
	a.HalfClosed = a.HalfClosed || b.HalfClosed
	a.CloseWait = a.CloseWait || b.CloseWait
	a.OpenSince = max(a.OpenSince, b.OpenSince)
	return a
}

// passRequests passes as many requests to the worker as there is room for, in their order.
func (m *Monitor) passRequests() {
	for len(m.backlog) > 0 {
		select {
		case m.requests <- m.backlog[0]:
			m.backlog = m.backlog[1:]
		default:
			return // the worker is behind
		}
	}
	m.backlog = nil
}

func (m *Monitor) applyAnswers() {
	for {
		select {
		case apply := <-m.answers:
			apply(m.engine, monotonic.Now())
		default:
			return
		}
	}
}

// Finish closes every open alert, and returns the alerts to report. After it only Close
// may be called.
func (m *Monitor) Finish() []detect.Alert {
	return append(m.Alerts(), m.engine.Finish(monotonic.Now())...)
}
