package detect

import (
	"fmt"
	"time"
)

// unreadListeners is for how long the engine may keep what it has last read of the listeners.
func (o *simOracle) unreadListeners() time.Duration {
	if w := &o.r.tr.worker; w.fails == 0 && w.gone == 0 {
		return 0
	}
	return listenForgetAfter
}

// judgeListeners judges each endpoint with listeners. The engine reads their queues every ten seconds, every
// five while one is not empty, and every second while one overflows; and those that wait, by cookie, every ten.
// So it opens an alert up to 14 s after an observer who sees each connection.
func (o *simOracle) judgeListeners() {
	judged := make(map[*simDestination]bool)
	for _, s := range o.r.k.listeners {
		if !judged[s.to] {
			judged[s.to] = true
			o.judgeEndpoint(s.to)
		}
	}
}

func (o *simOracle) judgeEndpoint(to *simDestination) {
	may, keeps, must, why := false, false, false, ""
	waited := 0 // about as long as counts
	for _, s := range o.r.k.listeners {
		if s.to == to {
			waited += s.waitedFor(o.r.k.now, unacceptedFor*19/20, nil)
		}
	}
	for _, s := range o.r.k.listeners {
		if s.to != to || s.closed {
			continue
		}
		enough, length := enoughToWait(s.Backlog), len(s.queue)
		certain := o.r.k.now - s.fullAt
		overflowed := s.overflows.within(o.r.k.now-s.chainFrom+listenInterval+3*o.answerTime()) > 0
		may = may || s.fullAt > 0 && overflowed && s.fullAt-s.chainFrom >= overloadedFor*19/20-time.Second-o.answerTime() && (certain <= longestGap || 2*length > int(s.Backlog)) ||
			20*waited >= 19*enough && 20*length >= 19*enough
		keeps = keeps || s.fullAt > 0 && certain <= time.Second || 2*length > int(s.Backlog) || 20*waited >= 19*(enough/2)
		must = must || o.mustReport(s)
		why += fmt.Sprintf("%d of %d wait, %d of the endpoint for 28 s, full since %v until %v with gaps, %d dropped; ", length, s.Backlog+1, waited, s.chainFrom-time.Hour, s.fullAt-time.Hour, s.Drops)
	}
	o.see(simKey{kind: "listen_queue_full", to: to}, may, keeps, must, why)
}

// mustReport reports whether a listener must have an alert: its queue has overflowed all the time, or enough
// connections have waited in it, by 5 % more than is needed.
func (o *simOracle) mustReport(s *simListening) bool {
	tr, now := o.r.tr, o.r.k.now
	isKnown := s.seen || !tr.byOwner && (tr.passes == nil || tr.passes(s.asSocket()))
	if w := &tr.worker; !isKnown || w.fails > 0 || w.gone > 0 || now-tr.began < 3*time.Second || s.known == 0 {
		return false
	}
	from := max(s.overflowsFrom(o), tr.began, s.known)
	overflows := now-from >= overloadedFor*21/20 && s.overflows.within(now-from) > 0
	const since = unacceptedFor * 21 / 20
	return overflows || now-max(tr.began, s.known) > since && 20*s.waitedFor(now, since, tr.stalls) >= 21*enoughToWait(s.Backlog)
}

// overflowsFrom is since when each reading must have shown an overflow: the queue is always full, or a segment has been
// dropped in every second and readings come often enough. It is the present if that is not so.
func (s *simListening) overflowsFrom(o *simOracle) time.Duration {
	from := o.r.k.now
	if s.filledFrom > 0 {
		from = s.filledFrom
	}
	if suspectedInterval+o.answerTime() <= overloadGap && s.droppedAt > 0 && o.r.k.now-s.droppedAt <= time.Second {
		from = min(from, s.steadyFrom)
	}
	return from
}

// waitedFor counts the connections that have waited for a time. With stalls it leaves out the time in which the engine
// cannot know of a connection: the table that is due within unacceptedInterval after it comes falls into a stall.
func (s *simListening) waitedFor(now, d time.Duration, stalls simStalls) (n int) {
	for _, c := range s.queue {
		if now-(stalls.readableFrom(c.at+unacceptedInterval)-unacceptedInterval) >= d {
			n++
		}
	}
	return n
}

// enoughToWait is how many connections must have waited, by docs/detection.md: 16, or half as many as fit.
func enoughToWait(backlog uint32) int {
	fit := int(backlog) + 1
	if fit >= 32 {
		return 16
	}
	return (fit + 1) / 2
}

// checkListeners judges the numbers of an alert about an endpoint with one listener.
func (o *simOracle) checkListeners(x *simAlert) {
	var only *simListening
	for _, s := range o.r.k.listeners {
		if s.Local.Port == x.Local.Port {
			if only != nil {
				return
			}
			only = s
		}
	}
	switch {
	case only == nil:
		o.fault("%s %s: there is no listener on %d", x.Kind, x.ID, x.Local.Port)
		return
	case x.Unverified || only.closed:
		return
	case x.Capacity != uint64(only.Backlog)+1:
		o.fault("%s %s %s: capacity %d, it is %d", x.Kind, x.ID, x.Phase, x.Capacity, only.Backlog+1)
	case only.seen && x.Culprit.Service != string(only.by.owner.Comm.Bytes()):
		o.fault("%s %s %s names %q, and %s listens", x.Kind, x.ID, x.Phase, x.Culprit.Service, only.by.owner.Comm.Bytes())
	}
	age := queuedInterval + 3*o.answerTime() + o.unreadListeners()
	least, most := only.lengthWithin(age)
	if n := int(x.Occupancy); n < least || n > most {
		o.fault("%s %s %s: %d connections wait, there were %d to %d", x.Kind, x.ID, x.Phase, n, least, most)
	}
	from := max(only.filledFrom, o.r.tr.began) + listenInterval + 3*o.answerTime() + o.unreadListeners()
	dropped := 0
	if only.filledFrom > 0 {
		dropped = max(0, only.overflows.between(o.r.k.now-from, age))
	}
	if n := int(x.Drops); n < dropped || n > int(only.Drops) || n > 0 != (x.Severity == Critical) {
		o.fault("%s %s %s: %d segments dropped, there were %d to %d, %s", x.Kind, x.ID, x.Phase, n, dropped, only.Drops, x.Severity)
	}
}

// lengthWithin is how many connections have waited, at least and at most, within a time up to now.
func (s *simListening) lengthWithin(d time.Duration) (least, most int) {
	least = 1 << 30
	for at := time.Duration(0); at <= d; at += simStep {
		n := s.lengths.upTo(at)
		least, most = min(least, n), max(most, n)
	}
	return least, most
}
