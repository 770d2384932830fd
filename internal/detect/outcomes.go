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

// endpointKey is an endpoint that many connections share: the peer that clients connect
// to, or the endpoint that a server listens on. The order of the fields leaves no padding
// between them, so that the key is hashed in one piece.
type endpointKey struct {
	addr  netip.Addr
	netns uint32
	port  uint16
	role  tcp.Role
}

func (k endpointKey) netnsInode() uint32 { return k.netns }

func (k *endpointKey) hash() uint64 { return addrHash(k.addr) + uint64(k.port) + uint64(k.role)<<16 }

func (k *endpointKey) endpoint() tcp.Endpoint { return tcp.Endpoint{Addr: k.addr, Port: k.port} }

func endpointKeyOf(t *tcp.Transition) endpointKey {
	if t.Role == tcp.RoleServer {
		return endpointKey{addr: t.Local.Addr, netns: t.Netns, port: t.Local.Port, role: tcp.RoleServer}
	}
	return peerKeyOf(t)
}

// peerKeyOf is the endpoint that a client connects to.
func peerKeyOf(t *tcp.Transition) endpointKey {
	return endpointKey{addr: t.Peer.Addr, netns: t.Netns, port: t.Peer.Port, role: tcp.RoleClient}
}

// outcomes counts bad outcomes, such as failed connects, among those of all connections of an
// endpoint.
type outcomes struct {
	topServices
	bad, all rate.Counter             // by the second
	reasons  map[string]*rate.Counter // of the bad ones
	local    majority                 // of the local addresses of the bad ones
	gaveUp   *giveUps                 // of connectFailures; nil: no connect has ended without a connection
}

// majority finds the address that is more than half of the newest ones (Boyer and Moore,
// "MJRTY - A Fast Majority Vote Algorithm", 1981). If no address is, it is any of them.
type majority struct {
	addr  netip.Addr
	votes int // at most maxVotes
}

// maxVotes bounds how many addresses of the past outvote those of the present.
const maxVotes = 64

func (m *majority) add(a netip.Addr) {
	switch {
	case m.addr == a:
		m.votes = min(maxVotes, m.votes+1)
	case m.votes > 0:
		m.votes--
	default:
		m.addr, m.votes = a, 1
	}
}

func (o *outcomes) advance(now time.Duration) {
	second := int64(now / time.Second)
	o.bad.Advance(second)
	o.all.Advance(second)
}

// lastWindow counts the outcomes within outcomeWindow. The bad ones include those of failedEarly.
func (o *outcomes) lastWindow(now time.Duration) (bad, all int64) {
	return o.bad.Sum(0, outcomeWindow) + o.failedEarly(now), o.all.Sum(0, outcomeWindow)
}

// countAny counts an outcome, bad or not, in the second in which it happened: on a starved machine all outcomes of many
// seconds may come at once.
func (o *outcomes) countAny(t *tcp.Transition) { o.all.AddAt(secondOf(t), 1) }

// countBad counts a bad outcome, its reason and its process. countAny counts it, too.
func (o *outcomes) countBad(now time.Duration, t *tcp.Transition, reason string) {
	o.bad.AddAt(secondOf(t), 1)
	o.local.add(t.Local.Addr)
	if o.reasons == nil {
		o.reasons = make(map[string]*rate.Counter)
	}
	r := o.reasons[reason]
	if r == nil {
		r = new(rate.Counter)
		o.reasons[reason] = r
	}
	r.Advance(int64(now / time.Second))
	r.AddAt(secondOf(t), 1)
	o.count(t)
}

func secondOf(t *tcp.Transition) int64 { return int64(t.Monotonic / time.Second) }

// mainReason is the most frequent reason within the window. part says in words how many of the
// bad outcomes have it.
func (o *outcomes) mainReason(now time.Duration) (main, part string) {
	var most, all int64
	take := func(reason string, count int64) {
		all += count
		if main == "" || count > most || count == most && reason < main {
			main, most = reason, count
		}
	}
	for reason, r := range o.reasons {
		r.Advance(int64(now / time.Second))
		take(reason, r.Sum(0, outcomeWindow))
	}
	if early := o.failedEarly(now); early > 0 {
		take(givenUp, early)
	}
	if 2*most > all {
		return main, "most of them"
	}
	return main, "more often than anything else"
}

// outcomeTable has the outcomes of the busiest endpoints.
type outcomeTable struct {
	*topk.Table[endpointKey, outcomes]
	swept int64 // second of the last sweep
}

func newOutcomeTable(limit int) outcomeTable {
	return outcomeTable{Table: topk.New[endpointKey, outcomes](limit)}
}

// entryAt returns the outcomes of an endpoint, advanced to now. The caller must count one outcome: entryAt has added
// it to the weight of the endpoint.
func (t *outcomeTable) entryAt(now time.Duration, key endpointKey, user topk.User) *outcomes {
	e := t.GetOrInsert(key, key.hash(), user)
	e.Value.advance(now)
	t.Add(e, 1)
	return &e.Value
}

// forgetIdle drops the endpoints that have had no outcome for 64 s, every ten seconds. It also
// halves the counts of services and processes, and drops the reasons that have not occurred for
// 64 s.
func (t *outcomeTable) forgetIdle(now time.Duration) {
	second := int64(now / time.Second)
	if second < t.swept+outcomeWindow {
		return
	}
	t.swept = second
	t.Unpin() // check raises again what has an open alert
	t.Sweep(func(e *topk.Entry[endpointKey, outcomes]) bool {
		e.Value.advance(now)
		e.Value.decay()
		if g := e.Value.gaveUp; g != nil {
			g.decay()
		}
		for reason, r := range e.Value.reasons {
			if r.Advance(second); r.Total() == 0 {
				delete(e.Value.reasons, reason)
			}
		}
		e.Weight = uint64(e.Value.all.Total() + e.Value.bad.Total())
		return e.Weight > 0
	})
}

// pin keeps the endpoint that an open alert is about.
func (t *outcomeTable) pin(c cause) {
	key := c.(endpointKey)
	t.Pin(key, key.hash())
}

// check opens an alert for each endpoint with at least limit bad outcomes within outcomeWindow,
// if they are at least half of all. The alert stays open while there are at least limit/2, and
// they are at least a quarter of all.
func (t *outcomeTable) check(now time.Duration, limit int, raise raiser, describe func(e *topk.Entry[endpointKey, outcomes], bad, all int64) Finding) {
	t.forgetIdle(now)
	for _, e := range t.Entries() {
		if 2*e.Weight < uint64(limit) {
			continue
		}
		e.Value.advance(now)
		bad, all := e.Value.lastWindow(now)
		finding := func() Finding { return describe(e, bad, all) }
		switch {
		case bad >= int64(limit) && 2*bad >= all:
			raise(e.Key, opens, finding)
		case 2*bad >= int64(limit) && 4*bad >= all:
			raise(e.Key, keeps, finding)
		}
	}
}
