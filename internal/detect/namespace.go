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
	// netnsForgetAfter is how long a namespace that cannot be found any more must have
	// been without a transition to be forgotten.
	netnsForgetAfter = 5 * time.Second
	// minReconciled is the number of TIME_WAITs below which the model is not corrected:
	// chance would decide.
	minReconciled = 16
)

// namespace is what is known of a network namespace.
type namespace struct {
	activeAt    time.Duration // the last transition in it
	transitions uint64        // in it, since its limits were requested
	requestedAt time.Duration // its limits
	known       bool          // limits have been set
	limits      tcp.Limits
	ports       int           // limits.Ports()
	suspectedAt time.Duration // when a detector last suspected something; 0: never

	wantHalfClosed        bool // a detector asks for the sockets in FIN_WAIT2
	halfClosedRequestedAt time.Duration

	wantCloseWait   bool          // a detector asks for the sockets in CLOSE_WAIT
	closeWaitReadAt time.Duration // 0: never

	open            int64         // connections that count as open, after a loss
	openRequestedAt time.Duration // when they were requested from the kernel's table; 0: never
	openCheckedAt   time.Duration // when those were requested that have been compared; 0: never
	openAnswer      openAnswer

	total    rate.Estimator // TIME_WAITs that connect() may not take over
	reusable rate.Estimator // TIME_WAITs that connect() may take over

	binds        map[uint16]*bind // by port
	bindCount    int              // those that connect() would choose otherwise
	bindServices topServices

	countedAt   time.Duration // when the kernel's count was compared with the model; 0: never
	scale       float64       // see [rate.TimeWaitModel]
	finFraction float64       // see [rate.TimeWaitModel]
}

// activeNamespace returns the entry of a namespace in which something has just happened.
func (tr *tracker) activeNamespace(netns uint32) *namespace {
	ns := tr.namespace(netns)
	ns.activeAt = tr.now
	ns.transitions++
	return ns
}

func (tr *tracker) namespace(netns uint32) *namespace {
	ns := &tr.namespaces.Get(netns, uint64(netns)).Value
	if ns.scale == 0 {
		ns.scale, ns.finFraction, ns.activeAt = 1, 1, tr.now
	}
	return ns
}

// requests lists the namespace with the most transitions first: answers may be late.
func (tr *tracker) requests(now time.Duration) []Request {
	tr.now = max(tr.now, now)
	var list []Request
	transitions := make(map[uint32]uint64)
	for _, e := range tr.namespaces.Entries() {
		ns := &e.Value
		interval := activeInterval
		if ns.suspectedAt > 0 && now-ns.suspectedAt < quietPeriod {
			interval = suspectedInterval
		}
		quiet := ns.activeAt < ns.requestedAt && interval == activeInterval && !ns.wantCloseWait && !tr.isStale(ns)
		if ns.requestedAt > 0 && (now-ns.requestedAt < interval || quiet) {
			continue
		}
		transitions[e.Key] = ns.transitions
		ns.requestedAt, ns.transitions = now, 0
		halfClosed := ns.wantHalfClosed && (ns.halfClosedRequestedAt == 0 || now-ns.halfClosedRequestedAt >= halfClosedInterval)
		if halfClosed {
			ns.halfClosedRequestedAt, ns.wantHalfClosed = now, false
		}
		request := Request{Netns: e.Key, HalfClosed: halfClosed, CloseWait: ns.wantCloseWait}
		if tr.requestsOpen(e.Key, ns) {
			request.OpenSince = ns.openRequestedAt
		}
		ns.wantCloseWait = false
		list = append(list, request)
	}
	slices.SortFunc(list, func(a, b Request) int {
		return cmp.Or(cmp.Compare(transitions[b.Netns], transitions[a.Netns]), cmp.Compare(a.Netns, b.Netns))
	})
	return list
}

func (tr *tracker) update(now time.Duration, netns uint32, l *tcp.Limits) {
	ns := tr.namespace(netns)
	switch {
	case l != nil:
		ns.limits, ns.known, ns.ports = *l, true, l.Ports()
	case !ns.known:
		ns.limits, ns.known = tcp.DefaultLimits(), true
		ns.ports = ns.limits.Ports()
		return
	default: // the last limits stay, while the namespace is in use
		if now-ns.activeAt > netnsForgetAfter {
			tr.forget(netns)
		}
		return
	}
	if l.TimeWaits >= 0 {
		ns.reconcile(now, float64(l.TimeWaits), tr.losses.lastMinute(now))
	}
}

// reconcile corrects the model by the kernel's own count of TIME_WAITs. If the kernel
// counts fewer, some have ended early, or their peers never close. If it counts more,
// transitions were lost. If no transition was lost, the filters leave out the
// connections of the additional TIME_WAITs, and the model does not count them.
func (ns *namespace) reconcile(now time.Duration, counted float64, lost uint64) {
	ns.total.Advance(now)
	ns.reusable.Advance(now)
	ns.countedAt, ns.scale = now, 1
	model := ns.model()
	model.Scale, model.FinFraction = 1, 1
	most := ns.total.TimeWaits(model)
	if ns.reusable.TimeWaits(model) > 0.05*most {
		return // it is not known how many of the reusable ones were taken over
	}
	model.FinFraction = 0
	least := ns.total.TimeWaits(model)
	if most-least > minReconciled {
		ns.finFraction = min(1, max(0, (counted-least)/(most-least)))
	}
	model.FinFraction = ns.finFraction
	modelled := ns.total.TimeWaits(model)
	switch {
	case modelled < minReconciled:
	case counted < 0.9*modelled:
		ns.scale = counted / modelled
	case lost > 0 && counted > 1.02*modelled:
		ns.scale = min(2, counted/modelled)
	}
}

// model is the model of TIME_WAITs that connect() may not take over.
func (ns *namespace) model() rate.TimeWaitModel {
	return rate.TimeWaitModel{
		Hold: rate.TimeWaitHold, FinWait2Hold: max(time.Second, ns.limits.FinWait2Timeout()), FinFraction: ns.finFraction, Scale: ns.scale,
	}
}

// modelFor is the model of the TIME_WAITs of one destination. Where connect() may take
// them over, those that wait for the peer's FIN are counted in the kernel's table: see
// [portStorm.suspectWaiting].
func (ns *namespace) modelFor(d destination, use *destinationUse) rate.TimeWaitModel {
	model := ns.model()
	if l := &ns.limits; l.MayReuse(d.local, d.peer) {
		model.ReuseAfter, model.Scale = max(l.ReuseDelay, time.Millisecond), 1
		use.modelWaiting(&model)
	}
	return model
}

// modelWaiting sets how long timewait sockets stay in FIN_WAIT2, by the kernel's table. If
// none was read lately, all peers close at once. If those that wait are the newest, each
// peer takes about as long as the oldest of these has waited. Else a fraction never closes.
func (u *destinationUse) modelWaiting(m *rate.TimeWaitModel) {
	if m.FinFraction = 1; u.waitingAt == 0 {
		return
	}
	created := float64(u.FinWait2Count(m.FinWait2Hold))
	if created == 0 {
		return
	}
	m.FinFraction = max(0, 1-float64(u.waiting)/created)
	if m.FinFraction > 0.05 && u.waitingOldest < u.waitingNewest+u.waitingNewest/4+2*time.Second {
		m.FinFraction, m.ReuseAfter = 1, m.ReuseAfter+u.waitingNewest
	}
}

func (ns *namespace) source(now time.Duration) Source {
	if ns.countedAt > 0 && now-ns.countedAt < 2*activeInterval {
		return Reconciled
	}
	return FromEvents
}

// forget drops a namespace and everything in it: the kernel may give its inode
// number to another namespace.
func (tr *tracker) forget(netns uint32) {
	tr.destinations.Sweep(func(e *topk.Entry[destination, destinationUse]) bool { return e.Key.netns != netns })
	tr.servers.Sweep(func(e *topk.Entry[server, serverUse]) bool { return e.Key.netns != netns })
	tr.namespaces.Sweep(func(e *topk.Entry[uint32, namespace]) bool { return e.Key != netns })
}
