package kernel_test

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/probe"
)

// storm is many short connections between two processes that do nothing else, two
// threads on each side, so that every softirq interrupts somebody who is not meant.
type storm struct {
	server, client *actor
	listeners      []*sock
}

const stormThreads = 2

// stormTracer is what storms between actors have in common, one after the other. It
// has room for a whole one.
var stormTracer struct {
	*tracer
	without []string
}

func retireStormTracer() error {
	if stormTracer.tracer == nil {
		return nil
	}
	retired := stormTracer.tracer
	stormTracer.tracer = nil
	return retire(retired)
}

func newStormWorld(t *testing.T, without ...string) *world {
	t.Helper()
	if err := retireShared(); err != nil {
		t.Error(err)
	}
	w := newWorld(t)
	w.n.Sysctl("net.ipv4.tcp_max_tw_buckets", "1000000")
	if stormTracer.tracer == nil || !slices.Equal(without, stormTracer.without) {
		if err := retireStormTracer(); err != nil {
			t.Error(err)
		}
		const perConnection = 10 * 256 // bytes
		o := probe.Options{Ends: true, Without: without}
		o.BufferSize = 1 << bits.Len(uint(perConnection*stormConnections(t)))
		tr, err := launch(options{Options: o})
		if err != nil {
			t.Fatal(err)
		}
		stormTracer.tracer, stormTracer.without = tr, without
	}
	w.tr = stormTracer.tracer
	w.watches = []*watch{{w.tr, true, w.tr.size()}}
	w.traced = now()
	return w
}

func blow(w *world, connections int, serving, calling uintptr) *storm {
	w.t.Helper()
	st := &storm{server: w.startActor("storm-server", stormThreads), client: w.startActor("storm-client", stormThreads)}
	var orders []*order
	var begin []func()
	for i := range stormThreads {
		port := uint16(7000 + i)
		listener := st.server.listen(everywhere(port))
		st.listeners = append(st.listeners, listener)
		reads, writes := st.credits()
		accept, connect := st.server.threads[i].order(serving), st.client.threads[i].order(calling)
		orders = append(orders, accept, connect)
		share := uintptr(connections / stormThreads)
		begin = append(begin, func() {
			accept.send(st.server.fd(listener), share, uintptr(writes))
			connect.send(uintptr(port), share, uintptr(reads))
		})
	}
	for _, f := range begin {
		f()
	}
	for _, o := range orders {
		if n, err := o.wait(); n != connections/stormThreads {
			w.t.Fatalf("storm: %d connections: %v", n, err)
		}
	}
	return st
}

// credits is a pipe from the server to the client.
func (st *storm) credits() (reads, writes int) {
	w := st.server.w
	w.t.Helper()
	o := st.server.order(unix.SYS_PIPE2)
	ends := o.put(make([]byte, 8))
	_, err := o.do(ends, 0)
	w.must(st.server, unix.SYS_PIPE2, err)
	theirs, mine := int(o.got(ends, 8)[0]), int(o.got(ends, 8)[4])
	o = st.client.order(unix.SYS_OPENAT)
	path := fmt.Appendf(nil, "/proc/%d/fd/%d\x00", st.server.pid, theirs)
	cwd := unix.AT_FDCWD
	reads, err = o.do(uintptr(cwd), o.put(path), unix.O_RDONLY, 0)
	w.must(st.client, unix.SYS_OPENAT, err)
	st.server.closeRaw(theirs)
	return reads, mine
}

// tally is who was named how often, by role and pid_source.
func (st *storm) tally(w *world, lines []line) (all, known, wrong int, named string) {
	w.t.Helper()
	right := map[string]*actor{"client": st.client, "server": st.server, "listener": st.server}
	counts := map[string]int{}
	for _, l := range lines {
		if l.Type != "transition" || l.Netns != w.n.Inode() {
			continue
		}
		all++
		role := stormRole(l)
		a := right[role]
		switch {
		case l.PID == nil:
			counts[role+" nobody "+l.Old+">"+l.New]++
		case a == nil || int(*l.PID) != a.pid || l.Comm != a.name():
			if wrong++; wrong <= 20 {
				w.t.Errorf("wrong owner: %s", l.raw)
			}
			counts[role+" WRONG "+l.Comm+" "+l.Source+" "+l.Old+">"+l.New]++
		default:
			known++
			counts[role+" "+l.Source]++
		}
	}
	var b strings.Builder
	for what, count := range counts {
		fmt.Fprintf(&b, "\n    %7d %s", count, what)
	}
	return all, known, wrong, b.String()
}

// stormRole tells the sides by their ports where no transition shows the role.
func stormRole(l line) string {
	servers := uint16(7000)
	switch {
	case l.Role != "":
		return l.Role
	case l.LocalPort >= servers && l.LocalPort < servers+stormThreads:
		return "server"
	case l.PeerPort >= servers && l.PeerPort < servers+stormThreads:
		return "client"
	}
	return ""
}

func checkStorm(t *testing.T, w *world, st *storm) {
	t.Helper()
	for _, l := range st.listeners {
		st.server.close(l)
	}
	w.n.Settle(0)
	all, known, wrong, named := st.tally(w, w.collect()[0])
	t.Logf("%d transitions, %d with an owner (%.3f %%), %d wrong%s", all, known, 100*float64(known)/float64(all), wrong, named)
	// Nobody has a socket whose descriptor is closed already and which is no orphan yet,
	// because close() waits for its lock: few transitions are made just then.
	if w.has("socket_storage") && all-known > max(10, all/1000) {
		t.Errorf("an owner for %d of %d transitions, want 99.9 %%", known, all)
	}
	if wrong > 0 {
		t.Errorf("%d wrong owners", wrong)
	}
}

// All clients are the client process's and all children and listeners the server's.
func TestStorm_OwnersOfBothSides(t *testing.T) {
	for _, without := range slices.Backward(variants()) { // the other storms go on with the last one
		t.Run(fmt.Sprintf("without %v", without), func(t *testing.T) {
			w := newStormWorld(t, without...)
			checkStorm(t, w, blow(w, stormConnections(t), opAccept, opConnect))
		})
	}
}
