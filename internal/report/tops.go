package report

import (
	"cmp"
	"hash/maphash"
	"slices"
	"strconv"
	"strings"

	"github.com/tcpshift/tcpshift/internal/detect/topk"
	"github.com/tcpshift/tcpshift/internal/recording"
	"github.com/tcpshift/tcpshift/internal/summary"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

const (
	// maxKeys bounds the services, destinations and endpoints that are counted one by one.
	maxKeys = 5000
	// maxRows bounds the rows of a table of the page, besides that of all others.
	maxRows = 100
)

// totals are sums over connections that have ended, without listeners.
type totals struct {
	Connections uint64
	Ended       [maxEnds]uint64
	TimeWaits   uint64 // connections that left one
	Retransmits uint64 // segments
	Sent        uint64 // bytes of payload
	Received    uint64 // bytes of payload
	Longest     int64  // nanoseconds
	CloseWaits  uint64 // open connections in CLOSE_WAIT, at the end of the recording
	Open        uint64 // open connections, at the end of the recording
}

func (t *totals) add(rec *recording.Record) {
	t.Connections++
	t.Ended[endIndex(rec.ClosedBy)]++
	if rec.FinalState == timeWait {
		t.TimeWaits++
	}
	t.Retransmits += rec.Retransmits
	t.Sent += rec.Sent
	t.Received += rec.Received
	if rec.Duration != nil {
		t.Longest = max(t.Longest, *rec.Duration)
	}
}

func (t *totals) merge(o *totals) {
	t.Connections += o.Connections
	for i := range o.Ended {
		t.Ended[i] += o.Ended[i]
	}
	t.TimeWaits += o.TimeWaits
	t.Retransmits += o.Retransmits
	t.Sent += o.Sent
	t.Received += o.Received
	t.Longest = max(t.Longest, o.Longest)
	t.CloseWaits += o.CloseWaits
	t.Open += o.Open
}

// Failed is how many of the connections count as failed, as in summary records.
func (t *totals) Failed() (n uint64) {
	for _, by := range summary.Failures {
		n += t.Ended[endIndex(string(by))]
	}
	return n
}

// topKey is what a table has one row of.
type topKey struct {
	name  string // of a service
	addr  string // of a destination or an endpoint
	port  uint16
	netns uint64
}

// top is a table of bounded size.
type top struct {
	rows  *topk.Table[topKey, *totals]
	other totals // of the keys that have no row
	seed  maphash.Seed
	open  map[topKey]*totals // of the connections that are open
}

func newTop() *top {
	t := &top{rows: topk.New[topKey, *totals](maxKeys), seed: maphash.MakeSeed()}
	t.rows.OnEvict(func(e *topk.Entry[topKey, *totals]) { t.other.merge(e.Value) })
	return t
}

func (t *top) of(key topKey) *totals {
	e := t.rows.GetOrInsert(key, maphash.Comparable(t.seed, key), topk.User{})
	if e.Value == nil {
		e.Value = new(totals)
	}
	t.rows.Add(e, 1)
	return e.Value
}

// tops are the tables.
type tops struct {
	services     *top
	destinations *top // of clients
	endpoints    *top // of servers
}

func newTops() tops { return tops{newTop(), newTop(), newTop()} }

func (t *tops) add(rec *recording.Record) {
	t.services.of(topKey{name: serviceOf(rec)}).add(rec)
	switch rec.Role {
	case "client":
		t.destinations.of(topKey{addr: cut(rec.PeerAddr, 64), port: rec.PeerPort, netns: rec.Netns}).add(rec)
	case "server":
		t.endpoints.of(topKey{addr: cut(rec.LocalAddr, 64), port: rec.LocalPort, netns: rec.Netns}).add(rec)
	}
}

// withoutOpen returns the tables without the connections that are open. It shares their rows.
func (t *tops) withoutOpen() tops {
	clone := func(t *top) *top { return &top{rows: t.rows, other: t.other, open: make(map[topKey]*totals)} }
	return tops{clone(t.services), clone(t.destinations), clone(t.endpoints)}
}

// addOpen counts a connection that is open at the end of the recording.
func (t *tops) addOpen(l *life) {
	if l.ended {
		return
	}
	count := func(t *top, key topKey) {
		c := t.open[key]
		if c == nil {
			c = new(totals)
			t.open[key] = c
		}
		c.Open++
		if l.state == "CLOSE_WAIT" {
			c.CloseWaits++
		}
	}
	count(t.services, topKey{name: l.service})
	switch l.socket.Role {
	case "client":
		count(t.destinations, topKey{addr: l.socket.PeerAddr, port: l.socket.PeerPort, netns: l.socket.Netns})
	case "server":
		count(t.endpoints, topKey{addr: l.socket.LocalAddr, port: l.socket.LocalPort, netns: l.socket.Netns})
	}
}

// serviceOf names the service of a connection as alerts and summaries do. It is "" if the owner is not known.
func serviceOf(rec *recording.Record) string {
	c := tcp.Cgroup{
		Unit: rec.Unit, UnitClaimed: rec.UnitClaimed,
		ContainerName: rec.ContainerName, ContainerClaimed: rec.ContainerClaimed,
	}
	return cmp.Or(c.Service(), cut(rec.Comm, 64))
}

// row is one row of a table.
type row struct {
	Key topKey
	totals
	Other bool // the sum of what has no row of its own
}

// Name is what the row is about.
func (r *row) Name() string {
	switch {
	case r.Other:
		return "all others"
	case r.Key.addr != "":
		return endpoint(r.Key.addr, r.Key.port)
	case r.Key.name == "":
		return "not known"
	}
	return r.Key.name
}

// endpoint writes an address and a port as ss(8) does.
func endpoint(addr string, port uint16) string {
	if addr == "" && port == 0 {
		return ""
	}
	shown := "*"
	if port != 0 {
		shown = strconv.Itoa(int(port))
	}
	if strings.Contains(addr, ":") {
		return "[" + addr + "]:" + shown
	}
	return addr + ":" + shown
}

// shown returns the rows of the page: those with the most connections and those with the most failures, and the sum of
// the others last. It takes the open connections out of t.
func (t *top) shown() []row {
	all := make([]row, 0, t.rows.Len())
	for _, e := range t.rows.Entries() {
		one := row{Key: e.Key, totals: *e.Value}
		if open := t.open[e.Key]; open != nil {
			one.merge(open)
			delete(t.open, e.Key)
		}
		all = append(all, one)
	}
	for key, open := range t.open {
		all = append(all, row{Key: key, totals: *open})
	}
	byConnections := func(a, b row) int {
		return cmp.Or(cmp.Compare(b.Connections+b.Open, a.Connections+a.Open), cmp.Compare(a.Name(), b.Name()), cmp.Compare(a.Key.netns, b.Key.netns))
	}
	byFailures := func(a, b row) int {
		return cmp.Or(cmp.Compare(b.Failed(), a.Failed()), byConnections(a, b))
	}
	rest := t.other
	if len(all) > maxRows {
		slices.SortFunc(all, byFailures)
		slices.SortFunc(all[maxRows/2:], byConnections)
		for i := maxRows; i < len(all); i++ {
			rest.merge(&all[i].totals)
		}
		all = all[:maxRows]
	}
	slices.SortFunc(all, byConnections)
	if rest.Connections+rest.Open > 0 {
		all = append(all, row{totals: rest, Other: true})
	}
	return all
}
