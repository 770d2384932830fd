package detect

import (
	"cmp"
	"slices"
	"time"
)

// How often a namespace is read: while something is suspected in it, and else.
const (
	readSuspected = time.Second
	readActive    = 10 * time.Second
	// suspectedAt is the part of a capacity that makes one look closer.
	suspectedAt = 0.4
	// gone is how long nothing has happened in a namespace that is not found any more
	// before it is taken for gone, with all that was in it.
	gone = 5 * time.Second
)

// namespace is what is known of one.
type namespace struct {
	seen      time.Duration // the last transition in it
	asked     time.Duration // when its limits were wanted last
	known     bool
	limits    Limits
	suspected time.Duration // when somebody last said so
	walk      bool          // somebody wants to know who is half closed
	walked    time.Duration // when that was asked for last

	total    meter // TIME_WAITs that nothing takes over early
	reusable meter // those that a connect() may

	read     time.Duration // when limits.TimeWaits was true; 0: never
	scale    float64       // what the kernel counted of what the model had then
	finished float64       // of the FIN_WAIT2 kind, the part whose peer closes
}

// namespace finds one in which something has happened.
func (w *world) namespace(netns uint32) *namespace {
	ns := w.keep(netns)
	ns.seen = w.now
	return ns
}

func (w *world) keep(netns uint32) *namespace {
	ns := &w.namespaces.keep(netns, &netns).value
	if ns.scale == 0 {
		ns.scale, ns.finished, ns.seen = 1, 1, w.now
	}
	return ns
}

func (w *world) wants(now time.Duration) []Want {
	var list []Want
	for netns, e := range w.namespaces.index {
		ns := &e.value
		every := readActive
		if ns.suspected > 0 && now-ns.suspected < calm {
			every = readSuspected
		}
		if ns.asked > 0 && (now-ns.asked < every || ns.seen < ns.asked && every == readActive) {
			continue
		}
		ns.asked = now
		walk := ns.walk && (ns.walked == 0 || now-ns.walked >= readActive)
		if walk {
			ns.walked, ns.walk = now, false
		}
		list = append(list, Want{Netns: netns, HalfClosed: walk})
	}
	slices.SortFunc(list, func(a, b Want) int { return cmp.Compare(a.Netns, b.Netns) })
	return list
}

func (w *world) learn(now time.Duration, netns uint32, l *Limits) {
	ns := w.keep(netns)
	switch {
	case l != nil:
		ns.limits, ns.known = *l, true
	case !ns.known:
		ns.limits, ns.known = defaults(), true
		return
	default: // what was read before is the best there is, if it still is there
		if now-ns.seen > gone {
			w.forget(netns)
		}
		return
	}
	if l.TimeWaits >= 0 {
		ns.reconcile(now, float64(l.TimeWaits), w.losses.recent(now))
	}
}

// reconcile holds the model against the kernel's own count. Fewer is what ended
// early, or peers that never close; more is what was lost on the way here, if
// something was, and else not seen by us at all and not ours to attribute.
func (ns *namespace) reconcile(now time.Duration, counted float64, lost uint64) {
	ns.total.at(now)
	ns.reusable.at(now)
	ns.read, ns.scale = now, 1
	rules := ns.rules()
	rules.scale, rules.finished = 1, 1
	most := ns.total.lingering(rules)
	if ns.reusable.lingering(rules) > 0.05*most {
		return // how many of those were taken over is not known
	}
	rules.finished = 0
	least := ns.total.lingering(rules)
	const some = 16 // too few to reckon with
	if most-least > some {
		ns.finished = min(1, max(0, (counted-least)/(most-least)))
	}
	rules.finished = ns.finished
	modelled := ns.total.lingering(rules)
	switch {
	case modelled < some:
	case counted < 0.9*modelled:
		ns.scale = counted / modelled
	case lost > 0 && counted > 1.02*modelled:
		ns.scale = min(2, counted/modelled)
	}
}

// rules are those of a TIME_WAIT that nothing takes over.
func (ns *namespace) rules() rules {
	return rules{hold: timeWait, halfHold: max(time.Second, ns.limits.FinTimeout), finished: ns.finished, scale: ns.scale}
}

func (ns *namespace) rulesOf(key portKey) rules {
	l := &ns.limits
	if l.reuses(key.local, key.peer) {
		// To the second of the stamp that the kernel compares.
		hold := l.ReuseDelay + time.Second
		return rules{hold: hold, halfHold: hold, finished: 1, scale: 1}
	}
	return ns.rules()
}

func (ns *namespace) source(now time.Duration) Source {
	if ns.read > 0 && now-ns.read < 2*readActive {
		return Reconciled
	}
	return FromEvents
}

// forget drops a namespace: its number may come back for another one.
func (w *world) forget(netns uint32) {
	w.ports.sweep(func(e *entry[portKey, portUse]) bool { return e.key.netns != netns })
	w.servers.sweep(func(e *entry[serverKey, serverUse]) bool { return e.key.netns != netns })
	w.namespaces.sweep(func(e *entry[uint32, namespace]) bool { return e.key != netns })
}
