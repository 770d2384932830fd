package detect

import (
	"fmt"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// halfClosedPileup finds closed connections whose peers do not close: they stay in
// FIN_WAIT2 until tcp_fin_timeout. That a peer closes after all passes no
// tracepoint, so whoever is suspected is counted in the kernel's table.
type halfClosedPileup struct {
	*world
	born  *heavy[halfKey, ring[uint32]]
	found map[halfKey]*halfFound
	swept int64
}

// halfKey is an end that waits: a client's destination, or a server's own.
type halfKey struct {
	netns  uint32
	role   tcp.Role
	remote tcp.Endpoint // of a client
	local  tcp.Endpoint // of a server
}

func (k *halfKey) spread() uint32 {
	return spread(k.remote.Addr, k.remote.Port) + spread(k.local.Addr, k.local.Port) + uint32(k.role)
}

type halfFound struct {
	count, before int
	at, beforeAt  time.Duration
}

func newHalfClosedPileup(w *world) detector {
	d := &halfClosedPileup{world: w, born: newHeavy[halfKey, ring[uint32]](w.Keys / 8), found: make(map[halfKey]*halfFound)}
	w.whoIsHalfClosed = d.counted
	return d
}

func (*halfClosedPileup) kind() string { return "fin_wait2_pileup" }

func (*halfClosedPileup) needs() tcp.Transitions {
	return between(tcp.States(), []tcp.State{tcp.TimeWait})
}

func halfKeyOf(netns uint32, client bool, local, peer tcp.Endpoint) halfKey {
	if client {
		return halfKey{netns: netns, role: tcp.RoleClient, remote: peer}
	}
	return halfKey{netns: netns, role: tcp.RoleServer, local: local}
}

func (d *halfClosedPileup) observe(t *tcp.Transition) {
	if t.New != tcp.TimeWait || t.Substate != tcp.FinWait2 {
		return
	}
	key := halfKeyOf(t.Netns, d.isClient(t, d.namespace(t.Netns)), t.Local, t.Peer)
	e := d.born.keep(key.spread(), &key)
	e.value.advance(int64(d.now / time.Second))
	e.value.slots[e.value.newest%seconds]++
	d.born.weigh(e, e.weight+1)
}

func (d *halfClosedPileup) check(raise raiser) {
	second := int64(d.now / time.Second)
	for _, e := range d.born.all {
		if e.weight < uint64(d.HalfClosed) { // it falls with the sweeps
			continue
		}
		e.value.advance(second)
		if found := d.namespaces.find(e.key.netns, &e.key.netns); found != nil && e.value.sum(0, seconds) >= int64(d.HalfClosed) {
			found.value.walk = true // it is asked for with the limits
		}
	}
	if second >= d.swept+16 {
		d.swept = second
		d.born.sweep(func(e *entry[halfKey, ring[uint32]]) bool {
			e.value.advance(second)
			e.weight = uint64(e.value.sum(0, seconds))
			return e.weight > 0
		})
	}
	for key, f := range d.found {
		switch {
		case d.now-f.at > 2*readActive:
			delete(d.found, key)
		case f.count >= d.HalfClosed:
			raise(key, false, func() Finding { return d.describe(key, f) })
		case f.count >= d.HalfClosed/2:
			raise(key, true, func() Finding { return d.describe(key, f) })
		}
	}
}

// settled is how long a socket has waited before it counts: any peer takes a moment.
const settled = 5 * time.Second

// counted takes what the kernel's table has of one namespace.
func (d *halfClosedPileup) counted(now time.Duration, netns uint32, sockets []tcp.Socket) {
	found := d.namespaces.find(netns, &netns)
	if found == nil {
		return
	}
	l := &found.value.limits
	counts := make(map[halfKey]int)
	for i := range sockets {
		s := &sockets[i]
		if l.FinTimeout-s.ExpiresIn >= settled {
			counts[halfKeyOf(netns, l.chooses(s.Local.Port), s.Local, s.Peer)]++
		}
	}
	for key, f := range d.found {
		if key.netns == netns && counts[key] == 0 {
			f.count = 0
		}
	}
	for key, count := range counts {
		f := d.found[key]
		if f == nil && (count < d.HalfClosed/2 || len(d.found) >= openLimit) {
			continue
		}
		if f == nil {
			f = &halfFound{before: count, beforeAt: now}
			d.found[key] = f
		} else {
			f.before, f.beforeAt = f.count, f.at
		}
		f.count, f.at = count, now
	}
}

func (d *halfClosedPileup) describe(key halfKey, f *halfFound) Finding {
	finding := Finding{
		Severity: Warning, Netns: key.netns, Role: key.role, Local: key.local, Peer: key.remote, Counted: "more of them",
		Occupancy: uint64(f.count), OccupancySource: Reconciled,
		Cause: fmt.Sprintf("this side has closed %d connections whose peers have acknowledged that and do not close: "+
			"the peer's application probably leaves its sockets in CLOSE_WAIT", f.count),
		Advice: "look at the peer: it has to close its sockets when it has read the end of the stream; until then a lower " +
			"net.ipv4.tcp_fin_timeout frees them sooner on this side",
	}
	if over := (f.at - f.beforeAt).Seconds(); over > 0 {
		finding.Rate = max(0, float64(f.count-f.before)/over)
	}
	if key.role == tcp.RoleClient {
		for _, e := range d.ports.all {
			if e.key.netns == key.netns && e.key.peer == key.remote.Addr && e.key.peerPort == key.remote.Port {
				finding.Who, finding.Local = e.value.who(), tcp.Endpoint{Addr: e.key.local}
			}
		}
	} else if e := d.servers.find(spread(key.local.Addr, key.local.Port), &serverKey{key.netns, key.local.Addr, key.local.Port}); e != nil {
		finding.Who = e.value.who()
	}
	return finding
}
