// Package activity sums up what happens on a host now, for people who watch: services, destinations, sockets by state
// and open alerts, in bounded memory. It must not read clocks or the host, make the trace loop wait, or know how its
// numbers are shown.
package activity

import (
	"sync/atomic"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/detect/topk"
	"github.com/tcpshift/tcpshift/internal/summary"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

const (
	// Interval is the time between two snapshots.
	Interval = time.Second
	// rateWindow is how many intervals a rate is taken over.
	rateWindow = 5
	// maxServices bounds the services that are counted one by one.
	maxServices = 1000
	// maxDestinations bounds the destinations of a snapshot.
	maxDestinations = 200
	// maxAlerts bounds the open alerts that are kept. The engine has fewer open.
	maxAlerts = 1000
)

// Config is what an Activity depends on.
type Config struct {
	// Destinations returns the destinations that use the largest shares of their ports; nil: they are not known.
	Destinations func(limit int) []detect.DestinationUsage
	// FromEvents means that sockets by state are counted from transitions: Observe gets all of them. Otherwise
	// Sockets takes counts of the kernel.
	FromEvents bool
}

// Activity sums up one run. All methods but Snapshot are for one goroutine, that of the trace loop.
type Activity struct {
	config   Config
	began    time.Time
	nextAt   time.Time
	total    counted
	services *topk.Table[Key, *service]
	others   counted // of the services that have no entry
	details  *summary.Table
	sockets  sockets
	alerts   map[string]detect.Alert // the open ones
	opened   uint64                  // alerts so far
	times    [rateWindow]time.Time   // of the last snapshots, the newest first; of fewer, the last one is the beginning
	count    int                     // of times
	latest   atomic.Pointer[Snapshot]
}

// Key identifies a service: see docs/glossary.md.
type Key struct {
	CgroupID uint64 // 0: not known
	Comm     tcp.Comm
	Known    bool // false: no owner is known, and the others are zero
}

// counted are the connections that have ended, and how many there were at the last snapshots.
type counted struct {
	summary.Totals
	before [rateWindow]sums // the newest first
}

// sums are what rates are taken of.
type sums struct{ connections, failed, retransmits uint64 }

type service struct {
	counted
	cgroup *tcp.Cgroup // the newest that is known
}

// New returns an Activity that begins at a time, in which nothing has happened.
func New(c Config, began time.Time) *Activity {
	a := &Activity{
		config: c, began: began, services: topk.New[Key, *service](maxServices), details: summary.NewTable(), alerts: make(map[string]detect.Alert),
	}
	a.sockets.byService = make(map[Key]*serviceSockets)
	a.services.OnEvict(func(e *topk.Entry[Key, *service]) { a.others.merge(&e.Value.counted) })
	a.times[0], a.count = began, 1
	return a
}

// Observe takes a transition.
func (a *Activity) Observe(t *tcp.Transition) {
	if a.config.FromEvents {
		a.sockets.observe(t)
	}
}

// ResetDecided does nothing: Add takes the connection when it is decided how it ended.
func (*Activity) ResetDecided(*tcp.Transition) {}

// AddLost does nothing: Publish takes the losses.
func (*Activity) AddLost(uint64) {}

// Add counts a connection that has ended. It may keep last.Cgroup, which never changes, and keeps nothing else of the
// values. It does not count listeners.
func (a *Activity) Add(last *tcp.Transition, c *tcp.Connection) {
	if last.Role == tcp.RoleListener {
		return
	}
	a.total.Add(last, c)
	a.details.Add(last, c)
	key := keyOf(last)
	e := a.services.GetOrInsert(key, key.hash(), topk.User{Quota: topk.QuotaOf(last.UID), Part: last.CgroupID})
	if e.Value == nil {
		e.Value = new(service)
	}
	a.services.Add(e, 1)
	e.Value.Add(last, c)
	if last.Cgroup != nil {
		e.Value.cgroup = last.Cgroup
	}
}

func keyOf(t *tcp.Transition) Key {
	if t.Owner.Source == tcp.PIDUnknown {
		return Key{}
	}
	return Key{CgroupID: t.CgroupID, Comm: t.Owner.Comm, Known: true}
}

// hash returns the bits in which services differ most.
func (k *Key) hash() uint64 {
	h := k.CgroupID
	for _, b := range k.Comm.Bytes() {
		h = h*31 + uint64(b)
	}
	return h
}

// Alert takes each phase of each alert.
func (a *Activity) Alert(alert *detect.Alert) {
	if alert.Phase == detect.Open {
		a.opened++
	}
	_, known := a.alerts[alert.ID]
	switch {
	case alert.Phase == detect.Close:
		delete(a.alerts, alert.ID)
	case known || len(a.alerts) < maxAlerts:
		a.alerts[alert.ID] = *alert
	}
}

// Usage does nothing: Publish asks for each destination.
func (*Activity) Usage([]detect.Usage) {}

// Started does nothing.
func (*Activity) Started() {}

// Stopping does nothing.
func (*Activity) Stopping() {}

// Due reports whether Publish is due.
func (a *Activity) Due(now time.Time) bool { return !now.Before(a.nextAt) }

// Publish makes a snapshot. lost is how many transitions were lost so far.
func (a *Activity) Publish(now time.Time, lost uint64) {
	a.nextAt = now.Add(Interval)
	a.latest.Store(a.snapshot(now, lost))
	a.remember(now)
}

// Skip is Publish without a snapshot: it only keeps the counts of now for later rates.
func (a *Activity) Skip(now time.Time) {
	a.nextAt = now.Add(Interval)
	a.remember(now)
}

// Snapshot returns the newest snapshot; nil: there is none yet. Any goroutine may call it.
func (a *Activity) Snapshot() *Snapshot { return a.latest.Load() }

// remember keeps the counts of now. The next snapshots compare their own with them, which gives the rates.
func (a *Activity) remember(now time.Time) {
	copy(a.times[1:], a.times[:])
	a.times[0], a.count = now, min(a.count+1, rateWindow)
	a.total.remember()
	a.others.remember()
	for _, e := range a.services.Entries() {
		e.Value.remember()
	}
}

func (c *counted) sums() sums {
	return sums{connections: c.Connections, retransmits: c.Retransmits, failed: c.Failures()}
}

func (c *counted) remember() {
	copy(c.before[1:], c.before[:])
	c.before[0] = c.sums()
}

// merge adds what o has counted, also to what rates are taken of.
func (c *counted) merge(o *counted) {
	c.Merge(&o.Totals)
	for i, s := range o.before {
		c.before[i].connections += s.connections
		c.before[i].failed += s.failed
		c.before[i].retransmits += s.retransmits
	}
}
