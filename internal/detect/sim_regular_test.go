package detect

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// regularLoad returns the only load to a destination, if its connections come at equal distances and
// this side closes them first. Then the perfect observer knows the rate exactly. It returns nil otherwise.
func (o *simOracle) regularLoad(d *simDestination) (only *simLoad) {
	for _, l := range o.r.loads {
		if l.to != d {
			continue
		}
		if only != nil {
			return nil
		}
		only = l
	}
	if only == nil || only.chance || only.bursts > 1 || only.growth != 1 || only.ends != closesFirst || only.untimed {
		return nil
	}
	for _, p := range only.by {
		if p.dead {
			return nil
		}
	}
	return only
}

// answersSoon reports whether the kernel's tables can always be read, and at once.
func (o *simOracle) answersSoon() bool {
	w := &o.r.tr.worker
	return w.fails == 0 && w.gone == 0 && w.before+w.after < 150*time.Millisecond
}

// judgeRegular judges when the alert of a regular load opens, where the engine has got all there is: with
// 5 % to spare, by the rules of docs/detection.md, and in the step in which they are fulfilled. It has
// verified the numbers before. So fast a storm that 5 % of its ports are less than half a second is not
// judged, and neither is a load that has starved within watched: it has caught up since, so its connections have
// not come at equal distances.
func (o *simOracle) judgeRegular(d *simDestination) {
	k, st, l := o.r.k, o.stormOf(d), o.regularLoad(d)
	if l == nil || o.r.tr.stalls.length(starvedLoads, k.now, watched) > 0 || d.hasKills() || !o.knowsAll(d) || !o.answersSoon() || k.limits.MaxTimeWaits != noBuckets || k.now <= l.from || k.now >= l.until {
		st.regularSince = 0
		return
	}
	u, age := o.useOf(d, false), k.now-l.from
	in := u.exhaustedIn(0.97*l.perSecond, 1.05*u.capacity, o.holdsOf(d, false))
	near := age >= 4*time.Second && in <= 14*time.Second && u.occupied() >= 0.75*u.capacity
	even := age >= 18*time.Second && in <= 55*time.Second && u.occupied() >= 0.55*u.capacity
	if l.perSecond > 0.1*u.capacity || float64(u.timeWaits) < 0.55*u.occupied() || !near && !even {
		st.regularSince = 0
		return
	}
	if st.regularSince == 0 {
		st.regularSince = k.now
		o.seen[mustBe+"regular storm"]++
	}
	for _, a := range o.open {
		if a.Kind == timeWaitStorm && o.destinationOf(&a.Alert) == d {
			return
		}
	}
	if k.now-st.regularSince > 2*simStep+o.lag() {
		o.fault("missed: a regular storm to %d since %v, near %v, even %v, exhausted in %v: %s", d.key.peerPort, st.regularSince-time.Hour, near, even, in, st.why)
		st.regularSince = k.now + time.Hour
	}
}

// makePlain makes of a run one regular storm. The engine gets all of it, and every answer soon.
func (r *simRun) makePlain() {
	l, k := r.loads[0], r.k
	ports := float64(k.limits.PortCount())
	k.limits.Reuse, k.limits.FinTimeout, k.limits.MaxTimeWaits = 0, time.Minute, noBuckets
	*l = simLoad{
		to: k.destinations[0], by: l.by[:1], growth: 1, bursts: 1, from: l.from, until: r.end, lasting: r.seconds(0.1, 1),
		perSecond: ports / (11 + 40*r.random.Float64()),
	}
	r.loads = r.loads[:1]
	r.filter, r.tr.passes, r.tr.byOwner, r.tr.lossy = "", nil, false, nil
	r.tr.stalls, r.tr.seedParts = nil, 0
	r.tr.worker.before, r.tr.worker.after, r.tr.worker.fails, r.tr.worker.gone = simStep/4, simStep/4, 0, 0
	clear(r.deaths)
	clear(r.restarts)
	r.kills, r.arrivals, k.listeners = nil, nil, nil
}

// makePlainLeak makes of a plain run a process that forgets to close one socket in two seconds.
func (r *simRun) makePlainLeak() {
	l := r.loads[0]
	l.from = r.k.now + time.Second
	r.end = l.from + 150*time.Second
	l.until, l.ends, l.perSecond, r.isPlainLeak = r.end, forgets, 0.5, true
}

// judgePlainLeak judges an alert that opens: with 5 % more sockets than open one, and the few that come
// until the kernel's table has confirmed them.
func (o *simOracle) judgePlainLeak(a *Alert) {
	stuck := 0
	for _, s := range o.r.k.sockets {
		if s.state == tcp.CloseWait && o.r.k.now-s.closeWaitAt >= 30*time.Second {
			stuck++
		}
	}
	if most := 34 + 2; o.r.isPlainLeak && stuck > most {
		o.fault("%s %s opens at %d sockets, want at most %d", a.Kind, a.ID, stuck, most)
	}
}
