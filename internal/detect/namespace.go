package detect

import (
	"cmp"
	"slices"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect/rate"
	"github.com/tcpshift/tcpshift/internal/detect/topk"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

const (
	// suspectedInterval and activeInterval are how often the limits of a namespace are
	// requested: while something is suspected in it, and while there is any traffic.
	suspectedInterval = time.Second
	activeInterval    = 10 * time.Second
	// halfClosedInterval is how often the sockets in FIN_WAIT2 of a namespace are requested
	// at most. The kernel's table is walked for them.
	halfClosedInterval = 2 * time.Second
	// suspectedShare is the fraction of a capacity from which on a storm is suspected.
	suspectedShare = 0.4
	// netnsForgetAfter is how long a namespace that cannot be read any more must have
	// been without a transition to be forgotten.
	netnsForgetAfter = 5 * time.Second
	// minReconciled is the number of TIME_WAITs below which the model is not corrected:
	// chance would decide.
	minReconciled = 16
)

// namespace is what is known of a network namespace.
type namespace struct {
	begun       bool          // it has the values that a new entry has
	activeAt    time.Duration // the last transition in it
	transitions uint64        // in it, since its limits were last requested
	requestedAt time.Duration // when its limits were last requested; 0: never
	known       bool          // limits are set: they were read, or are assumed
	limits      tcp.Limits
	ports       int           // limits.PortCount()
	suspectedAt time.Duration // when a detector last suspected something; 0: never

	wantHalfClosed        bool // a detector asks for the sockets in FIN_WAIT2
	halfClosedRequestedAt time.Duration

	listenersSoughtAt time.Duration // when its listeners were last requested because of a loss; 0: never

	wantCloseWait   bool          // a detector asks for the sockets in CLOSE_WAIT
	closeWaitReadAt time.Duration // 0: never
	closeWaitLost   uint64        // tracker.lostTotal when they were last requested

	unreadable bool // the newest answer is that it cannot be read: it may have vanished

	closeWaitUnknown  map[uint64]bool // by cookie: sockets of the newest table of which no transition has come
	closeWaitComplete bool            // none of them is missing from the leaks: see learnUnknown

	wantCounts bool          // a detector asks for counts of suspects
	nextCounts time.Duration // when they may be requested again

	open            int64         // connections that count as open; 0 before the first loss
	openRequestedAt time.Duration // when they were requested from the kernel's table; 0: never
	openCheckedAt   time.Duration // openRequestedAt of the newest table that was compared with the model; 0: none was
	openAnswer      openAnswer

	notReusable rate.Estimator // TIME_WAITs that connect() may not take over: those of servers, and some of clients
	reusable    rate.Estimator // TIME_WAITs of clients that connect() may take over

	binds        map[uint16]*bind // by port
	otherBinds   *tcp.PortSet     // ports that bind() has taken, and no transition shows by which connection: see takeBuckets
	bindCount    int              // ports of binds and otherBinds that connect() could choose if they were not bound
	bindsOther   int              // of bindCount: those that are not in binds
	bindServices topServices      // which have bound the ports in binds
	bindUse      *rate.Estimator  // model of the ports in binds for which bind.counted is true; nil: there was none
	bound        boundGrowth      // of the ports in limits.Bound

	// Of bindExhaustion, and of connects that failed because all ports are bound:
	bindOpensSince time.Duration // since when an alert about the bound ports is due; 0: it is not
	bindRaisedAt   time.Duration // when the cause of such an alert was raised last
	bindFailures   uint64        // failed connects that such an alert reports
	boundOutAt     time.Duration // the last failed connect() that an alert about its destination reports; 0: there was none

	reusing   int   // see tracker.reusing
	reusingAt int64 // tracker.swept when they were counted

	countedAt    time.Duration // when the engine got the kernel's count of all TIME_WAITs; 0: never
	kernelExcess float64       // by how much that count was above the model of notReusable; negative: below
	opensSince   time.Duration // since when an alert about tcp_max_tw_buckets is due; 0: it is not
	overflows    overflows     // of tcp_max_tw_buckets
	scale        float64       // see [rate.TimeWaitModel]
	finFraction  float64       // see [rate.TimeWaitModel]
}

// activeNamespace returns the entry of a namespace in which a socket of user has just done something.
func (tr *tracker) activeNamespace(netns uint32, user topk.User) *namespace {
	ns := tr.ensureNamespaceOf(netns, user)
	ns.activeAt = tr.now
	ns.transitions++
	return ns
}

// ensureNamespace returns the entry of a namespace, a new one if there is none.
func (tr *tracker) ensureNamespace(netns uint32) *namespace {
	return tr.ensureNamespaceOf(netns, topk.User{Quota: unknownUser})
}

func (tr *tracker) ensureNamespaceOf(netns uint32, user topk.User) *namespace {
	ns := &tr.namespaces.GetOrInsert(netns, uint64(netns), user).Value
	if !ns.begun {
		ns.begun, ns.scale, ns.finFraction, ns.activeAt = true, 1, 1, tr.now
	}
	return ns
}

// namespaceInTick returns the entry of a namespace while detectors are checked. If there is none it
// returns nil, and addMissing makes one after the tick: a new entry may evict one that a Finding still
// to be made refers to.
func (tr *tracker) namespaceInTick(netns uint32) *namespace {
	if found := tr.namespaces.Find(netns, uint64(netns)); found != nil {
		return &found.Value
	}
	tr.missing = append(tr.missing, netns)
	return nil
}

// addMissing adds the namespaces that detectors have asked for in a tick.
func (tr *tracker) addMissing() {
	for _, netns := range tr.missing {
		tr.ensureNamespace(netns)
	}
	tr.missing = tr.missing[:0]
}

// requests implements Engine.Requests.
func (tr *tracker) requests(now time.Duration) []Request {
	tr.now = max(tr.now, now)
	var list []Request
	for _, e := range tr.namespaces.Entries() {
		ns := &e.Value
		if counts := tr.countsDue(ns); counts || tr.limitsDue(ns) {
			list = append(list, tr.request(e.Key, ns, counts))
		}
	}
	list = tr.addListenRequests(list)
	slices.SortFunc(list, func(a, b Request) int {
		return cmp.Or(cmp.Compare(b.Transitions, a.Transitions), cmp.Compare(a.Netns, b.Netns))
	})
	return list
}

// limitsDue reports whether the limits of a namespace are to be requested now.
func (tr *tracker) limitsDue(ns *namespace) bool {
	interval := activeInterval
	if ns.suspectedAt > 0 && tr.now-ns.suspectedAt < quietPeriod {
		interval = suspectedInterval
	}
	quiet := ns.activeAt < ns.requestedAt && interval == activeInterval && !ns.wantCloseWait && !tr.isStale(ns)
	return ns.requestedAt == 0 || tr.now-ns.requestedAt >= interval && !quiet
}

// request makes the request for all that is wanted of a namespace, with counts of suspects
// if these are due.
func (tr *tracker) request(netns uint32, ns *namespace, counts bool) Request {
	r := Request{Netns: netns, Transitions: ns.transitions, CloseWait: ns.wantCloseWait}
	ns.requestedAt, ns.transitions, ns.wantCloseWait = tr.now, 0, false
	if r.CloseWait {
		ns.closeWaitLost = tr.lostTotal
	}
	if ns.wantHalfClosed && (ns.halfClosedRequestedAt == 0 || tr.now-ns.halfClosedRequestedAt >= halfClosedInterval) {
		r.HalfClosed = true
		ns.halfClosedRequestedAt, ns.wantHalfClosed = tr.now, false
	}
	if counts {
		r.Suspects = tr.requestCounts(netns, ns)
	}
	if tr.requestsOpen(netns, ns) {
		r.OpenRequestedAt = ns.openRequestedAt
	}
	return r
}

// update implements Engine.Update.
func (tr *tracker) update(now time.Duration, netns uint32, l *tcp.Limits) {
	ns := tr.ensureNamespace(netns)
	tr.setUnreadable(netns, ns, l == nil)
	tr.netnsGone.note(now, netns, l != nil, ns.known && !ns.limits.Assumed)
	switch {
	case l != nil:
		before := ns.limits.BoundReadAt
		ns.limits, ns.known, ns.ports = *l, true, l.PortCount()
		if l.BoundReadAt != before {
			ns.takeBuckets()
			ns.bound.take(l.BoundReadAt, l.BoundCount())
		}
	case !ns.known:
		ns.limits, ns.known = tcp.DefaultLimits(), true
		ns.ports = ns.limits.PortCount()
		return
	default: // the last limits stay, while the namespace is in use
		if now-ns.activeAt > netnsForgetAfter {
			tr.forget(netns)
		}
		return
	}
	ns.overflows.add(now, l.TimeWaitOverflows)
	if l.TimeWaits >= 0 {
		lost := tr.losses.lastMinute(now)
		if tr.seeding.isActive() {
			lost = 0 // what the kernel has more are sockets that Seed has not had yet
		}
		ns.reconcile(now, float64(l.TimeWaits), float64(lost))
		ns.kernelExcess = float64(l.TimeWaits) - ns.notReusable.TimeWaits(ns.model())
	}
}

// reconcile corrects the model of notReusable by the kernel's own count of TIME_WAITs. If the kernel counts
// fewer, some have ended early, or their peers never close. If it counts more and lost transitions are missing in the
// model, the model goes up by as many at most. If it counts more and none was lost, the filters
// leave out the connections of the others, and the model stays as it is. Where the reusable TIME_WAITs are more than
// 5 % of those, nothing is corrected.
func (ns *namespace) reconcile(now time.Duration, counted, lost float64) {
	ns.notReusable.Advance(now)
	ns.reusable.Advance(now)
	ns.countedAt, ns.scale = now, 1
	model := ns.model()
	model.Scale, model.FinFraction = 1, 1
	most := ns.notReusable.TimeWaits(model)
	if ns.reusable.TimeWaits(model) > 0.05*most {
		return // it is not known how many of the reusable ones were taken over
	}
	model.FinFraction = 0
	least := ns.notReusable.TimeWaits(model)
	if most-least > minReconciled {
		ns.finFraction = min(1, max(0, (counted-least)/(most-least)))
	}
	model.FinFraction = ns.finFraction
	modelled := ns.notReusable.TimeWaits(model)
	switch {
	case modelled < minReconciled:
	case counted < 0.9*modelled:
		ns.scale = counted / modelled
	case lost > 0 && counted > 1.02*modelled:
		ns.scale = min(2, counted/modelled, 1+lost/modelled)
	}
}

// model is how long the TIME_WAITs of notReusable occupy their ports.
func (ns *namespace) model() rate.TimeWaitModel {
	return rate.TimeWaitModel{
		Hold: rate.TimeWaitHold, FinWait2Hold: rate.TimeoutHold(max(time.Second, ns.limits.FinWait2TimewaitTimeout())), FinFraction: ns.finFraction, Scale: ns.scale,
	}
}

// modelFor is the model for one destination, corrected by the newest count of the kernel's table.
func (ns *namespace) modelFor(now time.Duration, d destination, use *destinationUse) rate.TimeWaitModel {
	model := ns.uncorrected(d, use)
	use.kernel.applyTo(&model, now)
	if least := use.kernel.leastTimeWaits(now); least > 0 && model.ReuseAfter == 0 {
		model.TimeWaitOffset += max(0, least-use.TimeWaits(model))
	}
	return model
}

// uncorrected is modelFor without the correction. Where connect() may take over TIME_WAITs, those that
// wait for the peer's FIN are counted in the kernel's table: see [portStorm.suspectWaiting].
func (ns *namespace) uncorrected(d destination, use *destinationUse) rate.TimeWaitModel {
	model := ns.model()
	if l := &ns.limits; ns.takesOver(d, use) {
		model.ReuseAfter, model.Scale = max(l.ReuseDelay, time.Millisecond), 1
		if model.ReusesFinWait2 = l.ReusesFinWait2; !model.ReusesFinWait2 {
			use.modelWaiting(&model, ns.finWait2Timeout())
			return model
		}
	} else {
		model.FinDelay = use.finDelay
	}
	if use.finKnown {
		model.FinFraction = use.finFraction // which is better than that of the whole namespace
	}
	return model
}

// takesOver reports whether connect() takes over TIME_WAITs of a destination: the namespace allows it, and some of
// them have a timestamp of the peer.
func (ns *namespace) takesOver(d destination, use *destinationUse) bool {
	return ns.limits.AllowsReuse(d.local, d.peer) && !use.lacksTimestamps()
}

// modelWaiting sets in m how long timewait sockets stay in FIN_WAIT2, by the kernel's table. If the
// sockets that wait are the newest, it assumes that every peer closes after waitingDelay, unless learnDelay knows
// better: then those from before the oldest that waits are gone, and the others decide about the fraction. Else it
// assumes that a fraction of the peers never closes: the fraction that waits now, or that of an older
// table if none was read lately. If none was ever read, it assumes that all close at once.
func (u *destinationUse) modelWaiting(m *rate.TimeWaitModel, timeout time.Duration) {
	created := float64(u.FinWait2Running(timeout, 0))
	if m.FinFraction = 1; u.waitingAt == 0 || created == 0 {
		if u.finKnown {
			m.FinFraction = u.finFraction
		}
		return
	}
	m.FinFraction = max(0, 1-float64(u.waiting)/created)
	switch {
	case m.FinFraction <= 0.05 || !u.newestWait():
	case u.delayKnown:
		m.FinFraction, m.FinDelay = 1, u.waitingDelay
	default:
		m.FinFraction = u.waitingClosed
	}
	m.Waiting = u.waitingIn
}

// learnDelay finds out from a table that was read at readAt whether waitingDelay is the time that the peers take to
// close. If the sockets that wait are the newest, either the peers of the older ones have closed after a while, or
// the older ones were killed. In the first case the oldest that waits has waited as long in the next table. In
// the second case it is the same socket, which has waited longer: then nothing is known of when its peer closes. One
// that has waited for the timeout of that substate shows nothing either: it ends without the peer.
func (u *destinationUse) learnDelay(now, readAt, timeout time.Duration) {
	before, passed := u.waitingSince, readAt-u.waitingReadAt
	u.waitingSince, u.waitingReadAt = readAt-u.waitingOldest, readAt
	created := u.FinWait2Within(now-u.waitingSince) - u.FinWait2Within(now-readAt)
	u.waitingClosed = 1
	if created > 0 {
		u.waitingClosed = min(1, max(0, 1-float64(u.waiting)/created))
	}
	grown := passed - (u.waitingSince - before)
	switch {
	case before == 0 || u.waitingOldest > timeout-lateTimers:
		u.delayKnown = false
	case u.newestWait() && 2*grown.Abs() <= passed:
		u.delayKnown, u.knownDelay = true, u.waitingDelay
	case (u.waitingDelay - u.knownDelay).Abs() > u.knownDelay/4+2*time.Second:
		u.delayKnown = false
	}
}

// newestWait reports whether the sockets that wait are the newest ones: the oldest of them is about as
// old as waitingSpan. Then every peer closes after a while.
func (u *destinationUse) newestWait() bool {
	return u.waitingOldest < u.waitingSpan+u.waitingSpan/4+2*time.Second
}

// learnWaiting finds out how long the peers take to close (waitingDelay), if they all do, from how many sockets wait
// and for how long the oldest has waited. If none was created for a while, several delays fit the number: the
// peers may have closed at any time since. If the last delay fits, it stays. readAgo is the age of the table: it
// does not have what was created since.
func (u *destinationUse) learnWaiting(readAgo time.Duration) {
	u.waitingSpan = u.TimeForFinWait2(u.waiting, readAgo)
	most := u.TimeForFinWait2(u.waiting+1+u.waiting/20, readAgo)
	least := min(u.waitingSpan, u.waitingOldest) // if some were lost, the span is too long
	u.waitingDelay = max(least, min(u.waitingDelay, most))
}

// modelOfAll is a model for notReusable that gives all TIME_WAITs of the namespace, as the kernel counts
// them: also those that connect() may take over, and those of connections that filters leave out.
func (ns *namespace) modelOfAll(now time.Duration) rate.TimeWaitModel {
	model := ns.model()
	if age := now - ns.countedAt; ns.countedAt > 0 && age < model.Hold {
		model.TimeWaitOffset = ns.kernelExcess * float64(model.Hold-age) / float64(model.Hold)
	}
	return model
}

// isCounted reports whether the kernel's count of TIME_WAITs is new enough to verify the
// model.
func (ns *namespace) isCounted(tr *tracker) bool {
	age := tr.now - ns.countedAt
	return ns.countedAt > 0 && !ns.unreadable && (age <= freshFor || age <= verifiedFor && tr.lostAt < ns.countedAt)
}

// isComplete reports whether nothing that was lost is missing from the kernel's count of TIME_WAITs, nor from the rate.
// The answer may have been on its way while transitions were lost, but not for that long.
func (ns *namespace) isComplete(tr *tracker) bool {
	return ns.isCounted(tr) && ns.countedAt-tr.lostAt > rate.MaxWindow
}

// forget drops a namespace, its attached sockets, its destinations and its servers: the kernel may give its inode
// number to another namespace.
func (tr *tracker) forget(netns uint32) {
	tr.forgetAttached(netns)
	tr.destinations.Sweep(func(e *topk.Entry[destination, destinationUse]) bool { return e.Key.netns != netns })
	tr.servers.Sweep(func(e *topk.Entry[server, serverUse]) bool { return e.Key.netns != netns })
	tr.namespaces.Sweep(func(e *topk.Entry[uint32, namespace]) bool { return e.Key != netns })
}
