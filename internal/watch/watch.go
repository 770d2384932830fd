// Package watch joins the engine that finds storms with the host: in the
// background it reads what the engine wants to know of network namespaces. It
// must not decide anything, nor make the stream wait.
package watch

import (
	"errors"
	"runtime"
	"syscall"
	"time"

	"github.com/tcpshift/tcpshift/internal/limits"
	"github.com/tcpshift/tcpshift/internal/monotonic"
	"github.com/tcpshift/tcpshift/internal/netns"
	"github.com/tcpshift/tcpshift/internal/storm"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Watch is an engine and who reads for it. Its methods are for one goroutine.
type Watch struct {
	engine  *storm.Engine
	wants   chan storm.Want
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
type answer func(e *storm.Engine, now time.Duration)

// pending is how many wants and answers may wait. The engine asks again for what
// did not get through.
const pending = 64

// New begins to watch: every transition from now on is going to be observed. The
// caller must Close it.
func New(c storm.Config) *Watch {
	w := &Watch{
		engine: storm.New(c, monotonic.Now()), wants: make(chan storm.Want, pending), answers: make(chan answer, pending),
		done: make(chan struct{}), known: make(map[uint32]known),
	}
	go w.read()
	return w
}

// Close ends the reading.
func (w *Watch) Close() {
	close(w.done)
}

// Observe takes one transition.
func (w *Watch) Observe(t *tcp.Transition) {
	w.engine.Observe(t)
}

// Lost says that so many transitions never came.
func (w *Watch) Lost(count uint64) {
	w.engine.Lost(monotonic.Now(), count)
}

// Alerts gives what is to be told now.
func (w *Watch) Alerts() []storm.Alert {
	for {
		select {
		case tell := <-w.answers:
			tell(w.engine, monotonic.Now())
			continue
		default:
		}
		break
	}
	at := monotonic.Now()
	for _, want := range w.engine.Wants(at) {
		select {
		case w.wants <- want:
		default: // the reader is behind
		}
	}
	return w.engine.Tick(at)
}

// Finish closes what is open.
func (w *Watch) Finish() []storm.Alert {
	return append(w.Alerts(), w.engine.Finish(monotonic.Now())...)
}

// read is the reader: the only goroutine that touches the host.
func (w *Watch) read() {
	w.seed()
	for {
		select {
		case <-w.done:
			return
		case want := <-w.wants:
			w.answer(want)
		}
	}
}

func (w *Watch) tell(a answer) bool {
	select {
	case w.answers <- a:
		return true
	case <-w.done:
		return false
	}
}

// seed reads the sockets that are there at the start, namespace by namespace.
func (w *Watch) seed() {
	namespaces, err := netns.Find(nil)
	if err != nil {
		namespaces = nil // then each is looked for when it is wanted
	}
	defer netns.CloseAll(namespaces)
	for _, n := range namespaces {
		if !w.seedFrom(n) {
			return
		}
	}
	w.tell(func(e *storm.Engine, _ time.Duration) { e.Seeded() })
}

// seedFrom reads the sockets of one namespace and tells some at a time: there may be
// as many as the kernel has room for. It gives false where nobody listens any more.
func (w *Watch) seedFrom(n netns.Namespace) (told bool) {
	const some = 256
	told = true
	var l *storm.Limits
	var at time.Duration
	var sockets []tcp.Socket
	flush := func() {
		known, batch := l, sockets
		l, sockets = nil, nil
		told = told && len(batch) == 0 || told && w.tell(func(e *storm.Engine, _ time.Duration) {
			if known != nil {
				e.Learn(at, n.Inode, known)
			}
			for i := range batch {
				e.Seed(at, n.Inode, &batch[i])
			}
		})
	}
	_ = enter(n, func() (err error) { // what could be read is told
		if l, err = w.limits(n); err != nil {
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

func (w *Watch) answer(want storm.Want) {
	var l *storm.Limits
	var half []tcp.Socket
	n, err := w.open(want.Netns)
	if err == nil {
		err = enter(n, func() (err error) {
			if l, err = w.limits(n); err != nil || !want.HalfClosed {
				return err
			}
			return limits.HalfClosedHere(func(s *tcp.Socket) { half = append(half, *s) })
		})
		_ = n.Close() // it was only read
	}
	if err != nil {
		l = nil
	}
	w.tell(func(e *storm.Engine, now time.Duration) {
		e.Learn(now, want.Netns, l)
		if want.HalfClosed && err == nil {
			e.HalfClosed(now, want.Netns, half)
		}
	})
}

var errMissing = errors.New("not found a moment ago")

// open finds the namespace. Where it does not show it is not searched for again at
// once: that is a walk through all of /proc.
func (w *Watch) open(inode uint32) (netns.Namespace, error) {
	k := w.known[inode]
	if k.missedAt > 0 && monotonic.Now()-k.missedAt < searchEvery {
		return netns.Namespace{}, errMissing
	}
	n, err := netns.Open(inode, k.path)
	if err != nil {
		w.keep(inode, known{missedAt: monotonic.Now()})
	}
	return n, err
}

func (w *Watch) keep(inode uint32, k known) {
	if len(w.known) > 4*pending*pending { // of namespaces that come and go
		clear(w.known)
	}
	w.known[inode] = k
}

// limits reads those of the namespace, which the calling thread is in.
func (w *Watch) limits(n netns.Namespace) (*storm.Limits, error) {
	l, err := limits.Here()
	if err != nil {
		return nil, err
	}
	k := w.known[n.Inode]
	k.path, k.missedAt = n.Path, 0
	if at := monotonic.Now(); k.boundAt == 0 || at-k.boundAt >= boundEvery {
		if k.bound, err = limits.BoundHere(); err != nil {
			return nil, err
		}
		k.boundAt = at
	}
	w.keep(n.Inode, k)
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
