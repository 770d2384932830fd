package monitor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/boottime"
	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/limits"
	"github.com/tcpshift/tcpshift/internal/netns"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// netnsHere returns the network namespace of this process, whose limits any user may read.
func netnsHere(t *testing.T) uint32 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat("/proc/self/ns/net", &st); err != nil {
		t.Fatal(err)
	}
	return uint32(st.Ino)
}

// noPort lets the monitor observe a connect() that fails because no local port is free.
func noPort(m *Monitor, netns uint32) {
	t := tcp.Transition{
		Monotonic: boottime.Now(), Netns: netns, Role: tcp.RoleClient, Old: tcp.Close, New: tcp.SynSent,
		Local: tcp.Endpoint{Addr: netip.MustParseAddr("192.0.2.1")}, Peer: tcp.Endpoint{Addr: netip.MustParseAddr("192.0.2.2"), Port: 80},
	}
	m.Observe(&t)
	t.Old, t.New, t.Locked, t.NoPort = tcp.SynSent, tcp.Close, true, true
	m.Observe(&t)
}

// The engine gets the limits that it has requested.
func TestMonitor_AnswersRequests(t *testing.T) {
	m := New(detect.Config{}, filter.Filter{}, nil, nil, func(string) {})
	defer m.Close()
	want, err := limits.Read()
	if err == nil {
		want.Bound, err = limits.ReadBoundPorts()
	}
	if err != nil {
		t.Fatal(err)
	}
	noPort(m, netnsHere(t))
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		alerts := append(m.Alerts(), m.Finish()...) // what is closed can be opened again
		if len(alerts) > 0 && alerts[0].Capacity > 0 {
			if a := alerts[0]; a.Kind != "port_exhaustion" || a.Phase != detect.Open || a.Capacity != uint64(want.PortCount()) {
				t.Errorf("%+v, want a capacity of %d", a, want.PortCount())
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the engine never gets the capacity")
		}
		noPort(m, netnsHere(t))
	}
}

// Close does not block while requests are pending, and Finish closes the alerts.
func TestMonitor_CloseDoesNotBlock(t *testing.T) {
	m := New(detect.Config{}, filter.Filter{}, nil, nil, func(string) {})
	for range 10 * queueSize {
		noPort(m, netnsHere(t))
	}
	m.Close()
	if closed := m.Finish(); len(closed) == 0 {
		t.Error("there was an alert, and it is not closed")
	}
}

// More namespaces than the queue has room for are active at once, and none of them can be found. Each
// gets an answer: without it, the engine would wait for limits for ever.
func TestWorker_AnswersForMissingNamespaces(t *testing.T) {
	const namespaces = 5 * queueSize
	updates, done := make(chan update, queueSize), make(chan struct{})
	defer close(done)
	w := worker{
		hostReader: hostReader{updates: updates, done: done, warn: func(string) {}, bound: make(map[uint32]boundPorts), readBound: limits.ReadBoundPorts},
		requests:   newRequestQueue(), search: netns.NewSearch(), waiting: make(map[uint32]detect.Request),
	}
	for i := range namespaces {
		w.requests.put(detect.Request{Netns: uint32(i + 1)}) // no namespace has such an inode
	}
	go w.run()
	engine, deadline := detect.New(detect.Config{}, boottime.Now()), time.After(time.Minute)
	for i := range namespaces {
		select {
		case apply := <-updates:
			apply(engine, boottime.Now())
		case <-deadline:
			t.Fatalf("%d of %d namespaces get an answer", i, namespaces)
		}
	}
}

// Requests for one namespace that wait for the worker are joined.
func TestMonitor_BacklogJoinsRequests(t *testing.T) {
	q := newRequestQueue()
	for range 3 {
		q.put(detect.Request{Netns: 1})
		q.put(detect.Request{Netns: 2, HalfClosed: true})
		q.put(detect.Request{Netns: 1, HalfClosed: true})
	}
	want := []detect.Request{{Netns: 1, HalfClosed: true}, {Netns: 2, HalfClosed: true}}
	if !slices.Equal(q.list, want) {
		t.Errorf("the backlog is %v, want %v", q.list, want)
	}
}

// The worker gets the request of the busiest namespace, then the oldest, and so on by turns.
func TestMonitor_BusiestAndOldestFirst(t *testing.T) {
	q := newRequestQueue()
	for netns, transitions := range []uint64{1, 5, 3, 9, 2} {
		q.put(detect.Request{Netns: uint32(netns), Transitions: transitions})
	}
	var order []uint32
	for r, ok := q.take(); ok; r, ok = q.take() {
		order = append(order, r.Netns)
	}
	if want := []uint32{3, 0, 1, 2, 4}; !slices.Equal(order, want) {
		t.Errorf("the order is %v, want %v", order, want)
	}
}

// If the process can open no further file, the operator gets one message.
func TestMonitor_WarnsOfDescriptorLimit(t *testing.T) {
	var messages []string
	w := hostReader{warn: func(message string) { messages = append(messages, message) }}
	for range 3 {
		w.report(fmt.Errorf("enter network namespace 7: %w", unix.EMFILE))
		w.report(netns.ErrGone)
		w.report(nil)
	}
	if len(messages) != 1 || !strings.Contains(messages[0], "enter network namespace 7: too many open files") {
		t.Errorf("the messages are %q, want one that names the cause", messages)
	}
}

// Limits stay valid where sock_diag fails: the engine gets them, without the bound ports or
// with those that were read last.
func TestWorker_LimitsWithoutSockDiag(t *testing.T) {
	failed := func() (*tcp.PortSet, error) { return nil, unix.ENOENT }
	w := hostReader{warn: func(string) {}, bound: make(map[uint32]boundPorts), readBound: failed}
	l, err := w.readLimits(1)
	if err != nil || !l.BoundUnknown || l.PortHigh == 0 || l.Assumed {
		t.Errorf("%+v, %v: want the sysctls without the bound ports", l, err)
	}
	last := tcp.PortSetOf(8080)
	w.bound[1] = boundPorts{ports: last, readAt: boottime.Now() - 2*boundInterval}
	l, err = w.readLimits(1)
	if err != nil || l.BoundUnknown || l.Bound != last {
		t.Errorf("%+v, %v: want the bound ports that were read last", l, err)
	}
}
