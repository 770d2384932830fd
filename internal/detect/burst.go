package detect

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// burstWindow is what failures and resets are counted over.
const burstWindow = 10

// end is one end of many connections: what a client connects to, or what a server
// listens on.
type end struct {
	netns uint32
	role  tcp.Role
	at    tcp.Endpoint
}

func (e *end) spread() uint32 { return spread(e.at.Addr, e.at.Port) + uint32(e.role) }

func endOf(t *tcp.Transition) end {
	if t.Role == tcp.RoleServer {
		return end{t.Netns, tcp.RoleServer, t.Local}
	}
	return end{t.Netns, tcp.RoleClient, t.Peer}
}

// tally counts what went wrong at an end, among all that happened there.
type tally struct {
	culprits
	bad, all ring[uint32]
	causes   map[string]uint64
	local    tcp.Endpoint
	began    time.Duration
}

func (t *tally) advance(now time.Duration) {
	t.bad.advance(int64(now / time.Second))
	t.all.advance(int64(now / time.Second))
}

func (t *tally) count(r *ring[uint32]) { r.slots[r.newest%seconds]++ }

func (t *tally) recent() (bad, all int64) {
	return t.bad.sum(0, burstWindow), t.all.sum(0, burstWindow)
}

// tallies are those of the busiest ends.
type tallies struct {
	*heavy[end, tally]
	swept int64
}

func newTallies(limit int) tallies {
	return tallies{heavy: newHeavy[end, tally](limit)}
}

func (t *tallies) at(now time.Duration, e end) *entry[end, tally] {
	found := t.keep(e.spread(), &e)
	if found.value.began == 0 {
		found.value.began = now
	}
	found.value.advance(now)
	t.weigh(found, found.weight+1)
	return found
}

// forgetIdle drops, every few seconds, the ends at which nothing happens.
func (t *tallies) forgetIdle(now time.Duration) {
	second := int64(now / time.Second)
	if second < t.swept+burstWindow {
		return
	}
	t.swept = second
	t.sweep(func(e *entry[end, tally]) bool {
		e.value.advance(now)
		e.value.fade()
		for cause, count := range e.value.causes {
			e.value.causes[cause] = count / 2
		}
		e.weight = uint64(e.value.all.sum(0, seconds) + e.value.bad.sum(0, seconds))
		return e.weight > 0
	})
}

// most is the cause that most of them had.
func (t *tally) most() (cause string) {
	for c, count := range t.causes {
		if cause == "" || count > t.causes[cause] || count == t.causes[cause] && c < cause {
			cause = c
		}
	}
	return cause
}

func (t *tally) note(cause string) {
	if t.causes == nil {
		t.causes = make(map[string]uint64)
	}
	t.causes[cause]++
}
