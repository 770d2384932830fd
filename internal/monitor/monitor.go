// Package monitor joins the detection engine with the host, which two background goroutines read:
// the seeder the sockets that exist at the start, the worker the limits and sockets of the network
// namespaces that the engine requests.
// The package must not decide anything, nor delay the stream.
package monitor

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/tcpshift/tcpshift/internal/boottime"
	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/limits"
	"github.com/tcpshift/tcpshift/internal/netns"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Monitor is an engine, its worker and its seeder. Its methods are for one goroutine, the one that
// reads the stream. None of them blocks, or does I/O other than [isGone].
type Monitor struct {
	engine   Engine
	requests *requestQueue
	updates  chan update
	done     chan struct{}
	closing  sync.Once
	worker   worker
	wake     *waker
}

// waker calls a function that is set once, later.
type waker struct{ f atomic.Pointer[func()] }

func (w *waker) call() {
	if f := w.f.Load(); f != nil {
		(*f)()
	}
}

// update passes what the worker or the seeder has read to the engine. It runs on the engine's
// goroutine.
type update func(e Engine, now time.Duration)

const (
	// queueSize bounds the updates that wait for the engine.
	queueSize = 64
	// batchSize bounds the sockets in one update while the engine is seeded. A namespace
	// may have millions.
	batchSize = 256
)

// New starts the worker and the seeder. From now on the caller must pass every transition that
// matches f to Observe, and call Alerts several times a second, or once a second if there are neither
// transitions nor open alerts. The caller must call Close. warn
// gets at most one message for the operator: that this process can open no further file, so that
// some namespaces cannot be read. It is called from another goroutine.
// newEngine makes the engine; nil: it is one of [detect.New].
// bindBuckets reads [tcp.Limits.BindBuckets] of the namespace that the calling thread is in; nil
// if that cannot be had. It is called from other goroutines, until some time after Close.
func New(c detect.Config, f filter.Filter, newEngine func(c detect.Config, now time.Duration) Engine, bindBuckets func() (*tcp.PortSet, error), warn func(message string)) *Monitor {
	c.Gone = isGone
	if newEngine == nil {
		newEngine = func(c detect.Config, now time.Duration) Engine { return detect.New(c, now) }
	}
	m := &Monitor{
		engine:   newEngine(c, boottime.Now()),
		requests: newRequestQueue(), updates: make(chan update, queueSize), done: make(chan struct{}), wake: new(waker),
	}
	var once sync.Once
	namespaces := make(chan netns.Namespace)
	warnOnce := func(message string) { once.Do(func() { warn(message) }) }
	common := hostReader{updates: m.updates, wake: m.wake, done: m.done, warn: warnOnce, filter: f, readBound: limits.ReadBoundPorts, readBuckets: bindBuckets}
	m.worker = worker{
		hostReader: common, requests: m.requests, namespaces: namespaces,
		search: netns.NewSearch(), waiting: make(map[uint32]detect.Request),
	}
	m.worker.bound = make(map[uint32]boundPorts)
	go m.worker.run()
	first := seeder{hostReader: common, namespaces: namespaces}
	first.bound = make(map[uint32]boundPorts)
	go first.run()
	return m
}

// Close makes the worker and the seeder end, and does not wait for that. Finish may still be called. Close may be called
// several times, from any goroutine.
func (m *Monitor) Close() { m.closing.Do(func() { close(m.done) }) }

// SetThresholds is that of [detect.Engine].
func (m *Monitor) SetThresholds(c detect.Config) { m.engine.SetThresholds(c) }

// Observe passes one transition to the engine: see [detect.Engine.Observe].
func (m *Monitor) Observe(t *tcp.Transition) {
	m.engine.Observe(t)
}

// ResetDecided passes a transition to Close to the engine a second time: see
// [detect.Engine.ResetDecided].
func (m *Monitor) ResetDecided(t *tcp.Transition) {
	m.engine.ResetDecided(t)
}

// AddLost reports that count transitions were lost before they reached the monitor.
func (m *Monitor) AddLost(count uint64) {
	m.engine.AddLost(boottime.Now(), count)
}

// HasOpenAlerts reports whether alerts are open.
func (m *Monitor) HasOpenAlerts() bool { return m.engine.HasOpenAlerts() }

// NotifyAnswers sets a function that is called from other goroutines when Alerts has an answer of the
// host to work with. It must not wait, and may be called until some time after Close.
func (m *Monitor) NotifyAnswers(wake func()) { m.wake.f.Store(&wake) }

// SeededAfter is how long after New the sockets that existed before had been read; 0: they
// have not.
func (m *Monitor) SeededAfter() time.Duration { return m.engine.SeededAfter() }

// Usage is what the engine knows of the use of ports and timewait sockets: see [detect.Engine.Usage].
func (m *Monitor) Usage() []detect.Usage { return m.engine.Usage(boottime.Now()) }

// Destinations returns the destinations that use the largest shares of their ports: see [detect.Engine.Destinations].
func (m *Monitor) Destinations(limit int) []detect.DestinationUsage {
	return m.engine.Destinations(boottime.Now(), limit)
}

// AlertsSuppressed is how many causes have had no alert because too many alerts were open.
func (m *Monitor) AlertsSuppressed() uint64 { return m.engine.AlertsSuppressed() }

// LeftOut is what detection has left out because a table was full: see [detect.LeftOut].
func (m *Monitor) LeftOut() detect.LeftOut { return m.engine.LeftOut() }

// Alerts returns the alerts to report now. It also passes requests of the engine to the
// worker, and applies the updates that wait.
func (m *Monitor) Alerts() []detect.Alert {
	m.applyUpdates()
	now := boottime.Now()
	for _, request := range m.engine.Requests(now) {
		m.requests.put(request)
	}
	return m.engine.Tick(now)
}

// joined asks for what a or b asks for, of their namespace.
func joined(a, b detect.Request) detect.Request {
	a.HalfClosed = a.HalfClosed || b.HalfClosed
	a.CloseWait = a.CloseWait || b.CloseWait
	a.OpenRequestedAt = max(a.OpenRequestedAt, b.OpenRequestedAt)
	a.Transitions += b.Transitions
	a.Listeners = a.Listeners.Joined(b.Listeners)
	a.OnlyListeners = a.OnlyListeners && b.OnlyListeners
	a.Suspects = b.Suspects.Newest(a.Suspects) // the engine requests the others again
	return a
}

// applyUpdates applies the updates that wait, up to four times as many as the queue has room for, so that
// a worker that sends without end does not delay the stream.
func (m *Monitor) applyUpdates() {
	for range 4 * queueSize {
		select {
		case apply := <-m.updates:
			apply(m.engine, boottime.Now())
		default:
			return
		}
	}
}

// Finish closes every open alert, and returns the alerts to report. After it only Close
// may be called.
func (m *Monitor) Finish() []detect.Alert {
	return append(m.Alerts(), m.engine.Finish(boottime.Now())...)
}
