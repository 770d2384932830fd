package detect

import (
	"net/netip"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect/rate"
	"github.com/tcpshift/tcpshift/internal/detect/topk"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// outcomeWindow is how many seconds failures and resets are counted over.
const outcomeWindow = 10

// end is one end of many connections: what clients connect to, or what a server
// listens on. The order of the fields leaves no padding between them, so that the key
// is hashed in one piece.
type end struct {
	addr  netip.Addr
	netns uint32
	port  uint16
	role  tcp.Role
}

func (e *end) hash() uint64 { return addrHash(e.addr) + uint64(e.port) + uint64(e.role)<<16 }

func (e *end) endpoint() tcp.Endpoint { return tcp.Endpoint{Addr: e.addr, Port: e.port} }

func endOf(t *tcp.Transition) end {
	if t.Role == tcp.RoleServer {
		return end{addr: t.Local.Addr, netns: t.Netns, port: t.Local.Port, role: tcp.RoleServer}
	}
	return peerOf(t)
}

// peerOf is the end that a client connects to.
func peerOf(t *tcp.Transition) end {
	return end{addr: t.Peer.Addr, netns: t.Netns, port: t.Peer.Port, role: tcp.RoleClient}
}

// outcomes counts what went wrong at an end, among all that happened there.
type outcomes struct {
	topProcesses
	bad, all rate.Counter      // by the second
	reasons  map[string]uint64 // of the bad ones
	local    tcp.Endpoint
}

func (o *outcomes) advance(now time.Duration) {
	second := int64(now / time.Second)
	o.bad.Advance(second)
	o.all.Advance(second)
}

func (o *outcomes) lastWindow() (bad, all int64) {
	return o.bad.Sum(0, outcomeWindow), o.all.Sum(0, outcomeWindow)
}

// countBad counts one that went wrong, for a reason, and its process.
func (o *outcomes) countBad(t *tcp.Transition, reason string) {
	o.bad.Add(1)
	if o.reasons == nil {
		o.reasons = make(map[string]uint64)
	}
	o.reasons[reason]++
	o.count(t)
}

// mainReason is the most frequent one.
func (o *outcomes) mainReason() (main string) {
	for reason, count := range o.reasons {
		if main == "" || count > o.reasons[main] || count == o.reasons[main] && reason < main {
			main = reason
		}
	}
	return main
}

// outcomeTable has the outcomes of the busiest ends.
type outcomeTable struct {
	*topk.Table[end, outcomes]
	swept int64 // second of the last sweep
}

func newOutcomeTable(limit int) outcomeTable {
	return outcomeTable{Table: topk.New[end, outcomes](limit)}
}

// at gives the outcomes of an end, ready to count at a time.
func (t *outcomeTable) at(now time.Duration, key end) *outcomes {
	e := t.Get(key, key.hash())
	e.Value.advance(now)
	t.Add(e, 1)
	return &e.Value
}

// forgetIdle drops the ends at which nothing happens, every ten seconds.
func (t *outcomeTable) forgetIdle(now time.Duration) {
	second := int64(now / time.Second)
	if second < t.swept+outcomeWindow {
		return
	}
	t.swept = second
	t.Sweep(func(e *topk.Entry[end, outcomes]) bool {
		e.Value.advance(now)
		e.Value.decay()
		for reason, count := range e.Value.reasons {
			e.Value.reasons[reason] = count / 2
		}
		e.Weight = uint64(e.Value.all.Total() + e.Value.bad.Total())
		return e.Weight > 0
	})
}

// check raises the ends at which at least limit went wrong within the window, and
// half of all. An open alert stays open down to half of both.
func (t *outcomeTable) check(now time.Duration, limit int, raise raiser, describe func(e *topk.Entry[end, outcomes], bad, all int64) Finding) {
	t.forgetIdle(now)
	for _, e := range t.Entries() {
		if 2*e.Weight < uint64(limit) {
			continue
		}
		e.Value.advance(now)
		bad, all := e.Value.lastWindow()
		finding := func() Finding { return describe(e, bad, all) }
		switch {
		case bad >= int64(limit) && 2*bad >= all:
			raise(e.Key, false, finding)
		case 2*bad >= int64(limit) && 4*bad >= all:
			raise(e.Key, true, finding)
		}
	}
}
