package monitor

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/boottime"
	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/limits"
	"github.com/tcpshift/tcpshift/internal/netns"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

const (
	// boundInterval is the time between two reads of the bound ports of a namespace. Such
	// a read walks the kernel's tables; the other limits need no walk.
	boundInterval = 10 * time.Second
	// boundPauseFactor is how many times as long as such a read took the next one must wait, unless it
	// is the first of its namespace: with many namespaces they would delay all other updates.
	boundPauseFactor = 10
	// maxBound bounds the namespaces whose bound ports the worker remembers: hosts create
	// and remove namespaces all the time.
	maxBound = 16384
)

// hostReader is what the goroutines that read the host for the engine have in common. Each has its
// own.
type hostReader struct {
	updates chan<- update
	wake    *waker // nil: none
	done    <-chan struct{}
	warn    func(message string)
	warned  bool
	filter  filter.Filter // that the transitions have passed

	readBound func() (*tcp.PortSet, error) // limits.ReadBoundPorts
	bound     map[uint32]boundPorts        // by inode number
	// readBuckets reads the ports that connect() skips: see New. It may be nil.
	readBuckets func() (*tcp.PortSet, error)
	nextBound   time.Duration // when bound ports may be read again: see boundPauseFactor
}

// worker reads what the engine requests. Its methods are called by run, or by a function
// that [netns.Namespace.Do] runs while run waits.
type worker struct {
	hostReader
	requests   *requestQueue
	namespaces <-chan netns.Namespace // that the seeder has found
	budget     budget
	nextTable  int // the kind of table that readTables reads first

	search  *netns.Search
	waiting map[uint32]detect.Request // until their namespaces are found
}

// boundPorts are the bound ports of a namespace.
type boundPorts struct {
	ports   *tcp.PortSet
	buckets *tcp.PortSet // see [tcp.Limits.BindBuckets]
	readAt  time.Duration
}

// run ends after Close.
func (w *worker) run() {
	defer w.search.Close()
	for {
		var searchDue <-chan time.Time
		if in, ok := w.search.StepDue(); ok {
			searchDue = time.After(in)
		}
		select {
		case <-w.done:
			return
		case <-w.requests.ready:
			if request, ok := w.requests.take(); ok {
				w.serve(request)
			}
		case n := <-w.namespaces:
			w.search.Add(n)
			if request, waits := w.waiting[n.Inode]; waits {
				delete(w.waiting, n.Inode)
				w.serve(request)
			}
		case <-searchDue:
			w.stepSearch()
		}
	}
}

// send waits until there is room in the queue of updates. It reports false after Close.
func (w *hostReader) send(u update) bool {
	select {
	case w.updates <- u:
		if w.wake != nil {
			w.wake.call()
		}
		return true
	case <-w.done:
		return false
	}
}

// report warns the operator once if this process can open no further file. Other errors are
// those of single namespaces, which come and go.
func (w *hostReader) report(err error) {
	if !w.warned && (errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE)) {
		w.warned = true
		w.warn(fmt.Sprintf("alerts lack the limits and sockets of some network namespaces: %v", err))
	}
}

// serve reads the namespace of a request and sends an update. If the namespace is not known, the
// update waits until the first part of the search is over.
func (w *worker) serve(request detect.Request) {
	n, status := w.locate(request.Netns)
	switch status {
	case netns.Found:
		err := w.read(n, request)
		if !errors.Is(err, netns.ErrGone) {
			return
		}
		w.search.Forget(request.Netns)
		w.serve(request)
	case netns.Searching:
		if older, waits := w.waiting[request.Netns]; waits {
			request = joined(older, request)
		}
		w.waiting[request.Netns] = request
	case netns.Missing:
		w.sendUpdate(request, nil, tables{})
	}
}

// locate needs no search for the namespace of this process.
func (w *worker) locate(inode uint32) (netns.Namespace, netns.Status) {
	if inode == ownNetns() {
		return netns.Namespace{Inode: inode}, netns.Found
	}
	return w.search.Locate(inode)
}

// read sends an update with what a request asks for, from n. It fails with ErrGone, and sends none, if n
// is no longer where it was found.
func (w *worker) read(n netns.Namespace, request detect.Request) error {
	var l *tcp.Limits
	var sockets tables
	err := enter(n, func() (err error) {
		if !request.OnlyListeners {
			if l, err = w.readLimits(n.Inode); err != nil {
				return err
			}
		}
		sockets.entered = true
		w.report(w.readTables(request, l, &sockets)) // the limits are right without
		return nil
	})
	if errors.Is(err, netns.ErrGone) {
		return err
	}
	if err != nil {
		w.report(err)
		l = nil
	}
	w.sendUpdate(request, l, sockets)
	return nil
}

// stepSearch searches on for a moment. It serves the requests that wait for namespaces which are found
// now, and sends an update without limits for those which are missing. For what the costly part of the
// search finds, such an update was sent before.
func (w *worker) stepSearch() {
	for _, result := range w.search.Step() {
		request, waits := w.waiting[result.Inode]
		delete(w.waiting, result.Inode)
		switch {
		case result.Found:
			request.Netns = result.Inode
			w.serve(request)
		case waits:
			w.sendUpdate(request, nil, tables{})
		}
	}
}

// readLimits reads the limits of the namespace that the calling thread is in. If the bound ports
// cannot be read, those that were read last count, else none.
func (w *hostReader) readLimits(inode uint32) (*tcp.Limits, error) {
	l, err := limits.Read()
	if err != nil {
		return nil, err
	}
	bound := w.bound[inode]
	now := boottime.Now()
	if bound.ports == nil || now-bound.readAt >= boundInterval && now >= w.nextBound {
		ports, err := w.readBound()
		buckets := w.bindBuckets()
		w.nextBound = now + (1+boundPauseFactor)*(boottime.Now()-now)
		if err != nil {
			w.report(err)
		} else {
			bound = boundPorts{ports, buckets, now}
			if len(w.bound) > maxBound {
				clear(w.bound)
			}
			w.bound[inode] = bound
		}
	}
	l.Bound, l.BoundUnknown = bound.ports, bound.ports == nil
	l.BindBuckets, l.BoundReadAt = bound.buckets, bound.readAt
	return l, nil
}

// bindBuckets returns nil if the ports that connect() skips cannot be read.
func (w *hostReader) bindBuckets() *tcp.PortSet {
	if w.readBuckets == nil {
		return nil
	}
	buckets, err := w.readBuckets()
	if err != nil {
		w.report(err)
		return nil
	}
	return buckets
}

// enter runs f on a thread that is in the namespace. If that is the namespace of this
// process, it needs no privilege.
func enter(n netns.Namespace, f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if n.Inode == ownNetns() {
		return f()
	}
	return n.Do(f)
}

// ownNetns is the inode number of the network namespace of the calling thread, 0 if it is not
// known.
func ownNetns() uint32 {
	var st syscall.Stat_t
	if syscall.Stat("/proc/thread-self/ns/net", &st) != nil {
		return 0
	}
	return uint32(st.Ino)
}
