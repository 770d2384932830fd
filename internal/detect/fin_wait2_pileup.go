package detect

import (
	"fmt"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect/rate"
	"github.com/tcpshift/tcpshift/internal/detect/topk"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// finWait2Pileup finds closed connections whose peers do not close: they stay in
// FIN_WAIT2 until tcp_fin_timeout. No tracepoint fires when the peer closes after all,
// so the detector requests the kernel's table if there may be many of them.
type finWait2Pileup struct {
	*tracker
	created *topk.Table[waitingKey, rate.Counter] // timewait sockets in FIN_WAIT2, by the second of their creation
	counted map[waitingKey]*halfClosedCount       // by the kernel's table
	swept   int64                                 // second of the last sweep
}

// waitingKey is what sockets in FIN_WAIT2 are counted by: the peer of a client, or the
// local endpoint of a server.
type waitingKey struct {
	netns uint32
	role  tcp.Role
	peer  tcp.Endpoint // of a client
	local tcp.Endpoint // of a server
}

func (k *waitingKey) hash() uint64 {
	return addrHash(k.peer.Addr) + addrHash(k.local.Addr) + uint64(k.peer.Port) + uint64(k.local.Port) + uint64(k.role)<<16
}

type halfClosedCount struct {
	count, before int
	at, beforeAt  time.Duration
}

func newFinWait2Pileup(tr *tracker) detector {
	d := &finWait2Pileup{
		tracker: tr, created: topk.New[waitingKey, rate.Counter](tr.MaxDestinations / 8), counted: make(map[waitingKey]*halfClosedCount),
	}
	tr.takeHalfClosed = d.takeCounts
	return d
}

func (*finWait2Pileup) kind() string { return "fin_wait2_pileup" }

func (*finWait2Pileup) needs() tcp.Transitions {
	return between(tcp.States(), []tcp.State{tcp.TimeWait})
}

func waitingKeyOf(netns uint32, client bool, local, peer tcp.Endpoint) waitingKey {
	if client {
		return waitingKey{netns: netns, role: tcp.RoleClient, peer: peer}
	}
	return waitingKey{netns: netns, role: tcp.RoleServer, local: local}
}

func (d *finWait2Pileup) observe(t *tcp.Transition) {
	if t.New != tcp.TimeWait || t.Substate != tcp.FinWait2 {
		return
	}
	client := d.isClient(t, d.activeNamespace(t.Netns))
	key := waitingKeyOf(t.Netns, client, t.Local, t.Peer)
	e := d.created.Get(key, key.hash())
	e.Value.Advance(int64(d.now / time.Second))
	e.Value.Add(1)
	d.created.Add(e, 1)
}

func (d *finWait2Pileup) check(raise raiser) {
	d.requestCounts()
	for key, c := range d.counted {
		describe := func() Finding { return d.describe(key, c) }
		switch {
		case d.now-c.at > 2*activeInterval:
			delete(d.counted, key)
		case c.count >= d.HalfClosed:
			raise(key, false, describe)
		case c.count >= d.HalfClosed/2:
			raise(key, true, describe)
		}
	}
}

// requestCounts requests the kernel's table of a namespace in which enough sockets have
// begun to wait within a minute. The table is read together with the limits.
func (d *finWait2Pileup) requestCounts() {
	second := int64(d.now / time.Second)
	for _, e := range d.created.Entries() {
		if e.Weight < uint64(d.HalfClosed) { // an upper bound: it falls only with a sweep
			continue
		}
		e.Value.Advance(second)
		if ns := d.namespaces.Find(e.Key.netns, uint64(e.Key.netns)); ns != nil && e.Value.Total() >= int64(d.HalfClosed) {
			ns.Value.wantHalfClosed = true
		}
	}
	if second < d.swept+int64(decayEvery/time.Second) {
		return
	}
	d.swept = second
	d.created.Sweep(func(e *topk.Entry[waitingKey, rate.Counter]) bool {
		e.Value.Advance(second)
		e.Weight = uint64(e.Value.Total())
		return e.Weight > 0
	})
}

// minWaiting is how long a socket must have waited to count: every peer takes some time
// to close.
const minWaiting = 5 * time.Second

// takeCounts counts the half-closed sockets of one namespace, from the kernel's table.
func (d *finWait2Pileup) takeCounts(now time.Duration, netns uint32, sockets []tcp.Socket) {
	ns := d.namespaces.Find(netns, uint64(netns))
	if ns == nil {
		return
	}
	l := &ns.Value.limits
	counts := make(map[waitingKey]int)
	for i := range sockets {
		s := &sockets[i]
		if l.FinTimeout-s.ExpiresIn >= minWaiting {
			counts[waitingKeyOf(netns, l.IsEphemeral(s.Local.Port), s.Local, s.Peer)]++
		}
	}
	for key, c := range d.counted {
		if key.netns == netns && counts[key] == 0 {
			c.count = 0
		}
	}
	for key, count := range counts {
		c := d.counted[key]
		switch {
		case c != nil:
			c.before, c.beforeAt = c.count, c.at
		case count < d.HalfClosed/2 || len(d.counted) >= maxOpenAlerts:
			continue
		default:
			c = &halfClosedCount{before: count, beforeAt: now}
			d.counted[key] = c
		}
		c.count, c.at = count, now
	}
}

func (d *finWait2Pileup) describe(key waitingKey, c *halfClosedCount) Finding {
	f := Finding{
		Severity: Warning, Netns: key.netns, Role: key.role, Local: key.local, Peer: key.peer, RateUnit: "more sockets",
		Occupancy: uint64(c.count), OccupancySource: Reconciled,
		Cause: fmt.Sprintf("this side has closed %d connections, whose peers have acknowledged that and do not close: "+
			"the peer's application probably leaves its sockets in CLOSE_WAIT", c.count),
		Advice: "look at the peer: it has to close its sockets after it has read the end of the stream; until then a lower " +
			"net.ipv4.tcp_fin_timeout frees them sooner on this side",
	}
	if seconds := (c.at - c.beforeAt).Seconds(); seconds > 0 {
		f.Rate = max(0, float64(c.count-c.before)/seconds)
	}
	if key.role == tcp.RoleClient {
		for _, e := range d.destinations.Entries() {
			if e.Key.netns == key.netns && e.Key.peer == key.peer.Addr && e.Key.peerPort == key.peer.Port {
				f.Process, f.Local = e.Value.top(), tcp.Endpoint{Addr: e.Key.local}
			}
		}
		return f
	}
	s := server{local: key.local.Addr, netns: key.netns, port: key.local.Port}
	if e := d.servers.Find(s, s.hash()); e != nil {
		f.Process = e.Value.top()
	}
	return f
}
