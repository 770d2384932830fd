// Package metrics counts what the trace loop sees, and shows the counts to Prometheus: in a bounded
// number of series, and over HTTP. It must not make the loop wait for a scrape or a scrape for the
// loop, and must not put an address, a port or a pid into a label.
package metrics

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/detect/topk"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

const (
	// publishEvery is the least time between two readings of the loop's own counts.
	publishEvery = time.Second
	// stuckAfter is how long the loop may take for a turn before it counts as stuck. A turn sleeps for up
	// to 5 s, and a stalled reader delays it by 250 ms.
	stuckAfter = 15 * time.Second
)

// Config is what a run has that metrics show.
type Config struct {
	Version string
	Outputs []Output
	// AllTransitions means that the kernel emits all transitions that match the filters. Otherwise they are
	// not counted: nobody knows how many there are.
	AllTransitions bool
	Alerts         bool // the run has alerts
}

// Output is an output of the run. Its functions may be called from any goroutine.
type Output struct {
	Name  string // the label: bounded, printable and unique in the run
	Limit int    // of the queue, in bytes
	Queue Queue
}

// Queue is what waits for the reader of an output; [*output.Queue] is one. Its methods are safe for
// concurrent use.
type Queue interface {
	Waiting() int                           // bytes
	Written() uint64                        // bytes
	Spooled() (bytes uint64, hasSpool bool) // on disk
	Rejected() uint64                       // records
}

// Counts are the loop's counts for one output.
type Counts struct {
	Output string // Output.Name
	record.Counts
}

// Metrics has the counts of one run. The Gatherer and the methods for the HTTP server are safe for concurrent
// use; all others are for the goroutine of the loop.
type Metrics struct {
	config   Config
	services *names[connectionCounts]

	cells     int            // series of services, without those of the others
	userCells map[uint32]int // of cells, by the user of the service

	transitions [maxStates][maxStates]atomic.Uint64 // by old and new state
	roles       [roleCount]roleCounts
	handshake   prometheus.Observer
	histograms  []histogramVec
	alerts      alertCounts

	byNetns, byService bounded // while Sockets runs
	sockets            atomic.Pointer[gauges]
	usage              atomic.Pointer[gauges]

	published atomic.Pointer[[]Counts]
	nextAt    time.Time    // when the loop's counts are due
	turnedAt  atomic.Int64 // the last turn of the loop: nanoseconds since began
	began     time.Time
	stage     atomic.Int32

	process processMetrics
}

// histogramVec are the histograms of a family.
type histogramVec struct {
	family *Family
	vec    *prometheus.HistogramVec
}

// New returns the metrics of a run that has not begun. It opens a file of /proc, which Close closes.
func New(c Config) *Metrics {
	m := &Metrics{config: c, services: newNames[connectionCounts](), userCells: make(map[uint32]int), began: time.Now()}
	m.services.removed = m.removeCells
	handshake, rtt, duration := familyHandshake.vec(), familyRTT.vec(), familyDuration.vec()
	m.histograms = []histogramVec{{familyHandshake, handshake}, {familyRTT, rtt}, {familyDuration, duration}}
	m.handshake = handshake.WithLabelValues()
	for i := range m.roles {
		if role := tcp.Role(i); hasTimes(role) {
			m.roles[i].rtt, m.roles[i].duration = rtt.WithLabelValues(role.String()), duration.WithLabelValues(role.String())
		}
	}
	m.alerts.init()
	m.process.open()
	return m
}

// removeCells takes back the series of a service.
func (m *Metrics) removeCells(s *slot[connectionCounts]) {
	m.cells -= s.counts.cells
	if m.userCells[s.user] -= s.counts.cells; m.userCells[s.user] <= 0 {
		delete(m.userCells, s.user)
	}
}

// Close frees what New has opened. A scrape after it lacks the memory of the process.
func (m *Metrics) Close() { m.process.close() }

// Observe counts a transition.
func (m *Metrics) Observe(t *tcp.Transition) {
	if m.config.AllTransitions && !t.IsTimeWaitEnd() {
		m.transitions[stateIndex(t.Old)][stateIndex(t.New)].Add(1)
	}
	if t.Old == tcp.SynSent && t.New == tcp.Established && t.InState > 0 {
		m.handshake.Observe(t.InState.Seconds())
	}
}

// ResetDecided does nothing: Add takes the connection when it is decided how it ended.
func (*Metrics) ResetDecided(*tcp.Transition) {}

// AddLost does nothing: Publish takes the losses.
func (*Metrics) AddLost(uint64) {}

// Add counts a connection that has ended. It keeps nothing of its arguments.
func (m *Metrics) Add(last *tcp.Transition, c *tcp.Connection) {
	m.roles[roleIndex(last.Role)].add(last, c)
	service := m.services.of(serviceOf(last), topk.User{Quota: topk.QuotaOf(last.UID), Part: last.CgroupID})
	m.countConnection(service, last, c)
}

// Alert counts one phase of an alert.
func (m *Metrics) Alert(a *detect.Alert) { m.alerts.add(a) }

// Due notes a turn of the loop, and reports whether it should call Publish.
func (m *Metrics) Due(now time.Time) bool {
	m.turnedAt.Store(int64(now.Sub(m.began)))
	return !now.Before(m.nextAt)
}

// Publish takes the counts of the outputs that have not failed. It keeps the slice.
func (m *Metrics) Publish(now time.Time, counts []Counts) {
	m.nextAt = now.Add(publishEvery)
	m.published.Store(&counts)
	m.services.tick(now.Sub(m.began))
}

// The stages of a run.
const (
	starting int32 = iota
	running
	stopping
)

// Started means that each output has its start record.
func (m *Metrics) Started() { m.stage.CompareAndSwap(starting, running) }

// Stopping means that the loop turns no more.
func (m *Metrics) Stopping() { m.stage.Store(stopping) }

// isStuck reports for how long the loop has not turned, if that is too long.
func (m *Metrics) isStuck(now time.Time) (since time.Duration, stuck bool) {
	since = now.Sub(m.began) - time.Duration(m.turnedAt.Load())
	return since, m.stage.Load() == running && since > stuckAfter
}
