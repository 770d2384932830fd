// Package monitor joins the detection engine with the host: a background goroutine, the
// worker, reads the limits and sockets of network namespaces that the engine requests.
// The package must not decide anything, nor delay the stream.
package monitor

import (
	"errors"
	"runtime"
	"syscall"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/limits"
	"github.com/tcpshift/tcpshift/internal/monotonic"
	"github.com/tcpshift/tcpshift/internal/netns"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Monitor is an engine and its worker. Its methods are for one goroutine, the one that
// reads the stream. None of them blocks or does I/O.
type Monitor struct {
	engine   *detect.Engine
	requests chan detect.Request
	answers  chan answer
	done     chan struct{}
	known    map[uint32]netnsState // by inode number; only the worker uses it
}

// netnsState is what the worker remembers of a namespace.
type netnsState struct {
	path      string        // where it was found
	bound     []uint16      // its bound ports
	boundAt   time.Duration // when they were read; 0: never
	missingAt time.Duration // when the namespace was not found; 0: it was found
}

// answer passes what the worker has read to the engine. It runs on the engine's
// goroutine.
type answer func(e *detect.Engine, now time.Duration)

const (
	// boundInterval is the time between two reads of the bound ports of a namespace. Such
	// a read walks the kernel's tables; the other limits need no walk.
	boundInterval = 10 * time.Second
	// searchInterval is the time until the worker searches again for a namespace that it
	// has not found. A search walks all of /proc.
	searchInterval = 10 * time.Second
	// queueSize bounds the waiting requests, and the waiting answers. The engine repeats a
	// request that was dropped.
	queueSize = 64
	// maxKnown bounds the namespaces that the worker remembers: hosts create and remove
	// them all the time.
	maxKnown = 4 * queueSize * queueSize
	// batchSize bounds the sockets in one answer while the engine is seeded. A namespace
	// may have millions.
	batchSize = 256
)

// New starts the worker. From now on the caller must pass every transition to Observe,
// and call Alerts several times a second. The caller must call Close.
func New(c detect.Config) *Monitor {
	m := &Monitor{
		engine:   detect.New(c, monotonic.Now()),
		requests: make(chan detect.Request, queueSize), answers: make(chan answer, queueSize),
		done: make(chan struct{}), known: make(map[uint32]netnsState),
	}
	go m.work()
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

// Alerts returns the alerts to report now. It also passes requests of the engine to the
// worker, and answers of the worker to the engine.
func (m *Monitor) Alerts() []detect.Alert {
	m.applyAnswers()
	now := monotonic.Now()
	for _, request := range m.engine.Requests(now) {
		select {
		case m.requests <- request:
		default: // the worker is behind; the engine repeats the request
		}
	}
	return m.engine.Tick(now)
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

// work is the worker, the only goroutine that reads the host.
func (m *Monitor) work() {
	m.seed()
	for {
		select {
		case <-m.done:
			return
		case request := <-m.requests:
			m.serve(request)
		}
	}
}

// send waits until there is room in the queue of answers. It reports false after Close.
func (m *Monitor) send(a answer) bool {
	select {
	case m.answers <- a:
		return true
	case <-m.done:
		return false
	}
}

// seed reads the sockets that exist at the start, one namespace after the other.
func (m *Monitor) seed() {
	namespaces, err := netns.Find(nil)
	if err != nil {
		namespaces = nil // serve searches for each when the engine requests it
	}
	defer netns.CloseAll(namespaces)
	for _, n := range namespaces {
		if !m.seedFrom(n) {
			return
		}
	}
	m.send(func(e *detect.Engine, _ time.Duration) { e.SeedingDone() })
}

// seedFrom sends the limits and the sockets of one namespace, batch by batch. It
// reports false after Close.
func (m *Monitor) seedFrom(n netns.Namespace) (sent bool) {
	sent = true
	var l *tcp.Limits // until they are sent with the first batch
	var readAt time.Duration
	var sockets []tcp.Socket
	flush := func() {
		newLimits, batch := l, sockets
		l, sockets = nil, nil
		if !sent || len(batch) == 0 {
			return
		}
		sent = m.send(func(e *detect.Engine, _ time.Duration) {
			if newLimits != nil {
				e.Update(readAt, n.Inode, newLimits)
			}
			for i := range batch {
				e.Seed(readAt, n.Inode, &batch[i])
			}
		})
	}
	// After an error the sockets that were read before it are sent.
	_ = enter(n, func() (err error) {
		if l, err = m.limits(n); err != nil {
			return err
		}
		readAt = monotonic.Now()
		err = limits.EachSocket(func(s *tcp.Socket) {
			if sockets == nil {
				sockets = make([]tcp.Socket, 0, batchSize)
			}
			if sockets = append(sockets, *s); len(sockets) == batchSize {
				flush()
			}
		})
		flush()
		return err
	})
	return sent
}

// serve reads one namespace for a request and sends the answer. If the namespace cannot
// be read, the answer has no limits.
func (m *Monitor) serve(request detect.Request) {
	var l *tcp.Limits
	var halfClosed []tcp.Socket
	n, err := m.open(request.Netns)
	if err == nil {
		err = enter(n, func() (err error) {
			if l, err = m.limits(n); err != nil || !request.HalfClosed {
				return err
			}
			return limits.EachHalfClosed(func(s *tcp.Socket) { halfClosed = append(halfClosed, *s) })
		})
		_ = n.Close() // nothing was written to it
	}
	if err != nil {
		l = nil
	}
	m.send(func(e *detect.Engine, now time.Duration) {
		e.Update(now, request.Netns, l)
		if request.HalfClosed && err == nil {
			e.UpdateHalfClosed(now, request.Netns, halfClosed)
		}
	})
}

var errMissing = errors.New("network namespace not found a moment ago")

// open finds a namespace by its inode number. If it does not find it, it fails without
// another search for searchInterval.
func (m *Monitor) open(inode uint32) (netns.Namespace, error) {
	state := m.known[inode]
	if state.missingAt > 0 && monotonic.Now()-state.missingAt < searchInterval {
		return netns.Namespace{}, errMissing
	}
	n, err := netns.Open(inode, state.path)
	if err != nil {
		m.remember(inode, netnsState{missingAt: monotonic.Now()})
	}
	return n, err
}

func (m *Monitor) remember(inode uint32, state netnsState) {
	if len(m.known) > maxKnown {
		clear(m.known)
	}
	m.known[inode] = state
}

// limits reads the limits of n, which the calling thread must be in.
func (m *Monitor) limits(n netns.Namespace) (*tcp.Limits, error) {
	l, err := limits.Read()
	if err != nil {
		return nil, err
	}
	state := m.known[n.Inode]
	state.path, state.missingAt = n.Path, 0
	if now := monotonic.Now(); state.boundAt == 0 || now-state.boundAt >= boundInterval {
		if state.bound, err = limits.ReadBoundPorts(); err != nil {
			return nil, err
		}
		state.boundAt = now
	}
	m.remember(n.Inode, state)
	l.Bound = state.bound
	return l, nil
}

// enter runs f on a thread that is in the namespace. If that is the namespace of this
// process, it needs no privilege.
func enter(n netns.Namespace, f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var st syscall.Stat_t
	if syscall.Stat("/proc/thread-self/ns/net", &st) == nil && st.Ino == uint64(n.Inode) {
		return f()
	}
	return n.Do(f)
}
