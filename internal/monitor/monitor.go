// Package monitor joins the detection engine with the host: a background goroutine
// reads the limits and sockets of network namespaces that the engine requests. It must
// not decide anything, nor make the stream wait.
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

// Monitor is an engine and the goroutine that reads the host for it. Its methods are
// for one goroutine, the one that reads the stream; none of them blocks or does I/O.
type Monitor struct {
	engine   *detect.Engine
	requests chan detect.Request
	answers  chan answer
	done     chan struct{}
	known    map[uint32]netnsState // by inode number; only the reader uses it
}

// netnsState is what the reader remembers of a namespace.
type netnsState struct {
	path      string        // where it was found
	bound     []uint16      // its bound ports
	boundAt   time.Duration // when they were read; 0: never
	missingAt time.Duration // when the namespace was not found; 0: it was found
}

// answer is what the reader has found out. It runs on the engine's goroutine.
type answer func(e *detect.Engine, now time.Duration)

const (
	// boundInterval is the time between two reads of the bound ports of a namespace: that
	// walks the kernel's tables, the other limits do not.
	boundInterval = 10 * time.Second
	// searchInterval is the time until a namespace that was not found is searched again:
	// that walks all of /proc.
	searchInterval = 10 * time.Second
	// queueSize bounds the requests and the answers that wait. The engine repeats a
	// request that was dropped.
	queueSize = 64
	// maxKnown bounds the namespaces that the reader remembers, which come and go.
	maxKnown = 4 * queueSize * queueSize
	// batchSize is how many sockets of the start are given to the engine at a time: there
	// may be as many as the kernel has room for.
	batchSize = 256
)

// New starts the reader. From now on the caller observes every transition, and reads
// Alerts several times a second. The caller must Close the monitor.
func New(c detect.Config) *Monitor {
	m := &Monitor{
		engine:   detect.New(c, monotonic.Now()),
		requests: make(chan detect.Request, queueSize), answers: make(chan answer, queueSize),
		done: make(chan struct{}), known: make(map[uint32]netnsState),
	}
	go m.read()
	return m
}

// Close ends the reader. It does not wait for it. Finish may still be called.
func (m *Monitor) Close() {
	close(m.done)
}

// Observe takes one transition: see [detect.Engine.Observe].
func (m *Monitor) Observe(t *tcp.Transition) {
	m.engine.Observe(t)
}

// Lost says that count transitions were lost before they reached the monitor.
func (m *Monitor) Lost(count uint64) {
	m.engine.Lost(monotonic.Now(), count)
}

// Alerts gives the alerts to report now. It also passes requests of the engine to the
// reader, and its answers to the engine.
func (m *Monitor) Alerts() []detect.Alert {
	m.applyAnswers()
	now := monotonic.Now()
	for _, request := range m.engine.Requests(now) {
		select {
		case m.requests <- request:
		default: // the reader is behind; the engine repeats the request
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

// Finish gives the alerts to report, and closes those that are open. It is the last call
// but Close.
func (m *Monitor) Finish() []detect.Alert {
	return append(m.Alerts(), m.engine.Finish(monotonic.Now())...)
}

// read is the reader: the only goroutine that reads the host.
func (m *Monitor) read() {
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

// send waits until the engine's goroutine can take the answer. It reports false after
// Close.
func (m *Monitor) send(a answer) bool {
	select {
	case m.answers <- a:
		return true
	case <-m.done:
		return false
	}
}

// seed reads the sockets that exist at the start, namespace by namespace.
func (m *Monitor) seed() {
	namespaces, err := netns.Find(nil)
	if err != nil {
		namespaces = nil // each is searched when it is requested
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
	// An error leaves out the rest of the namespace: what was read before is sent.
	_ = enter(n, func() (err error) {
		if l, err = m.limits(n); err != nil {
			return err
		}
		readAt = monotonic.Now()
		err = limits.SocketsHere(func(s *tcp.Socket) {
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

// serve reads what is requested of one namespace and sends the answer. A namespace that
// cannot be read is answered without limits.
func (m *Monitor) serve(request detect.Request) {
	var l *tcp.Limits
	var halfClosed []tcp.Socket
	n, err := m.open(request.Netns)
	if err == nil {
		err = enter(n, func() (err error) {
			if l, err = m.limits(n); err != nil || !request.HalfClosed {
				return err
			}
			return limits.HalfClosedHere(func(s *tcp.Socket) { halfClosed = append(halfClosed, *s) })
		})
		_ = n.Close() // nothing was written to it
	}
	if err != nil {
		l = nil
	}
	m.send(func(e *detect.Engine, now time.Duration) {
		e.Update(now, request.Netns, l)
		if request.HalfClosed && err == nil {
			e.HalfClosed(now, request.Netns, halfClosed)
		}
	})
}

var errMissing = errors.New("network namespace not found a moment ago")

// open finds a namespace by its inode number. One that was not found is not searched
// again for searchInterval.
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

// limits reads those of the namespace that the calling thread is in, which is n.
func (m *Monitor) limits(n netns.Namespace) (*tcp.Limits, error) {
	l, err := limits.Here()
	if err != nil {
		return nil, err
	}
	state := m.known[n.Inode]
	state.path, state.missingAt = n.Path, 0
	if now := monotonic.Now(); state.boundAt == 0 || now-state.boundAt >= boundInterval {
		if state.bound, err = limits.BoundHere(); err != nil {
			return nil, err
		}
		state.boundAt = now
	}
	m.remember(n.Inode, state)
	l.Bound = state.bound
	return l, nil
}

// enter runs f on a thread that is in the namespace. For the namespace of this process
// that takes no privilege.
func enter(n netns.Namespace, f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var st syscall.Stat_t
	if syscall.Stat("/proc/thread-self/ns/net", &st) == nil && st.Ino == uint64(n.Inode) {
		return f()
	}
	return n.Do(f)
}
