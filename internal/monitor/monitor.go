// Package monitor joins the engine that finds storms with the host: in the
// background it reads what the engine wants to know of network namespaces. It
// must not decide anything, nor make the stream wait.
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

// Monitor is an engine and who reads for it. Its methods are for one goroutine.
type Monitor struct {
	engine  *detect.Engine
	wants   chan detect.Want
	answers chan answer
	done    chan struct{}
	known   map[uint32]known // the reader's own
}

// known is what the reader keeps of a namespace.
type known struct {
	path    string   // where it was found
	bound   []uint16 // its bound ports
	boundAt time.Duration

	missedAt time.Duration // when it was not found; 0: it was
}

// boundEvery is how often the bound ports are read: that is a walk, the rest is not.
const boundEvery = 10 * time.Second

// searchEvery is how often a namespace is searched for that was not found.
const searchEvery = 10 * time.Second

// answer is what the reader found out, for the engine's goroutine to tell it.
type answer func(e *detect.Engine, now time.Duration)

// pending is how many wants and answers may wait. The engine asks again for what
// did not get through.
const pending = 64

// New begins to watch: every transition from now on is going to be observed. The
// caller must Close it.
func New(c detect.Config) *Monitor {
	m := &Monitor{
		engine: detect.New(c, monotonic.Now()), wants: make(chan detect.Want, pending), answers: make(chan answer, pending),
		done: make(chan struct{}), known: make(map[uint32]known),
	}
	go m.read()
	return m
}

// Close ends the reading.
func (m *Monitor) Close() {
	close(m.done)
}

// Observe takes one transition.
func (m *Monitor) Observe(t *tcp.Transition) {
	m.engine.Observe(t)
}

// Lost says that so many transitions never came.
func (m *Monitor) Lost(count uint64) {
	m.engine.Lost(monotonic.Now(), count)
}

// Alerts gives what is to be told now.
func (m *Monitor) Alerts() []detect.Alert {
	for {
		select {
		case tell := <-m.answers:
			tell(m.engine, monotonic.Now())
			continue
		default:
		}
		break
	}
	at := monotonic.Now()
	for _, want := range m.engine.Wants(at) {
		select {
		case m.wants <- want:
		default: // the reader is behind
		}
	}
	return m.engine.Tick(at)
}

// Finish closes what is open.
func (m *Monitor) Finish() []detect.Alert {
	return append(m.Alerts(), m.engine.Finish(monotonic.Now())...)
}

// read is the reader: the only goroutine that touches the host.
func (m *Monitor) read() {
	m.seed()
	for {
		select {
		case <-m.done:
			return
		case want := <-m.wants:
			m.answer(want)
		}
	}
}

func (m *Monitor) tell(a answer) bool {
	select {
	case m.answers <- a:
		return true
	case <-m.done:
		return false
	}
}

// seed reads the sockets that are there at the start, namespace by namespace.
func (m *Monitor) seed() {
	namespaces, err := netns.Find(nil)
	if err != nil {
		namespaces = nil // then each is looked for when it is wanted
	}
	defer netns.CloseAll(namespaces)
	for _, n := range namespaces {
		if !m.seedFrom(n) {
			return
		}
	}
	m.tell(func(e *detect.Engine, _ time.Duration) { e.Seeded() })
}

// seedFrom reads the sockets of one namespace and tells some at a time: there may be
// as many as the kernel has room for. It gives false where nobody listens any more.
func (m *Monitor) seedFrom(n netns.Namespace) (told bool) {
	const some = 256
	told = true
	var l *detect.Limits
	var at time.Duration
	var sockets []tcp.Socket
	flush := func() {
		known, batch := l, sockets
		l, sockets = nil, nil
		told = told && len(batch) == 0 || told && m.tell(func(e *detect.Engine, _ time.Duration) {
			if known != nil {
				e.Learn(at, n.Inode, known)
			}
			for i := range batch {
				e.Seed(at, n.Inode, &batch[i])
			}
		})
	}
	_ = enter(n, func() (err error) { // what could be read is told
		if l, err = m.limits(n); err != nil {
			return err
		}
		at = monotonic.Now()
		err = limits.SocketsHere(func(s *tcp.Socket) {
			if sockets == nil {
				sockets = make([]tcp.Socket, 0, some)
			}
			if sockets = append(sockets, *s); len(sockets) == some {
				flush()
			}
		})
		flush()
		return err
	})
	return told
}

func (m *Monitor) answer(want detect.Want) {
	var l *detect.Limits
	var half []tcp.Socket
	n, err := m.open(want.Netns)
	if err == nil {
		err = enter(n, func() (err error) {
			if l, err = m.limits(n); err != nil || !want.HalfClosed {
				return err
			}
			return limits.HalfClosedHere(func(s *tcp.Socket) { half = append(half, *s) })
		})
		_ = n.Close() // it was only read
	}
	if err != nil {
		l = nil
	}
	m.tell(func(e *detect.Engine, now time.Duration) {
		e.Learn(now, want.Netns, l)
		if want.HalfClosed && err == nil {
			e.HalfClosed(now, want.Netns, half)
		}
	})
}

var errMissing = errors.New("not found a moment ago")

// open finds the namespace. Where it does not show it is not searched for again at
// once: that is a walk through all of /proc.
func (m *Monitor) open(inode uint32) (netns.Namespace, error) {
	k := m.known[inode]
	if k.missedAt > 0 && monotonic.Now()-k.missedAt < searchEvery {
		return netns.Namespace{}, errMissing
	}
	n, err := netns.Open(inode, k.path)
	if err != nil {
		m.keep(inode, known{missedAt: monotonic.Now()})
	}
	return n, err
}

func (m *Monitor) keep(inode uint32, k known) {
	if len(m.known) > 4*pending*pending { // of namespaces that come and go
		clear(m.known)
	}
	m.known[inode] = k
}

// limits reads those of the namespace, which the calling thread is in.
func (m *Monitor) limits(n netns.Namespace) (*detect.Limits, error) {
	l, err := limits.Here()
	if err != nil {
		return nil, err
	}
	k := m.known[n.Inode]
	k.path, k.missedAt = n.Path, 0
	if at := monotonic.Now(); k.boundAt == 0 || at-k.boundAt >= boundEvery {
		if k.bound, err = limits.BoundHere(); err != nil {
			return nil, err
		}
		k.boundAt = at
	}
	m.keep(n.Inode, k)
	l.Bound = k.bound
	return l, nil
}

// enter runs f in the namespace. In this process's own that takes no privilege.
func enter(n netns.Namespace, f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var st syscall.Stat_t
	if syscall.Stat("/proc/thread-self/ns/net", &st) == nil && st.Ino == uint64(n.Inode) {
		return f()
	}
	return n.Do(f)
}
