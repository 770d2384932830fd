package detect

import (
	"fmt"
	"slices"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// simKey is what the alerts of the kinds without a capacity are about.
type simKey struct {
	kind string
	to   *simDestination
	pid  uint32 // of the client, of close_wait_leak
}

// simVerdict is what the perfect observer says of a cause.
type simVerdict struct {
	mayAt     time.Duration // when an alert might last have opened, with 5 % less
	keepsAt   time.Duration // when it might last have stayed open
	mustSince time.Duration // since when there has had to be one, with 5 % more; 0: there need not be
	openAt    time.Duration // when one was open last
	history   []int         // of close_wait_leak: what the engine has got
	counts    []int         // all that count, by half seconds; of fin_wait2_pileup by steps
	older     []int         // of fin_wait2_pileup: those of counts that two tables must have had
	why       string
}

// patience is how long it may take the engine to open and close an alert of a kind.
func (o *simOracle) patience(kind string) (opens, closes time.Duration) {
	lag := o.lag() + time.Second
	switch tables := 3 * o.answerTime(); kind {
	case "close_wait_leak": // two tables must lack a socket
		return unverifiedAfter + lag + tables, quietPeriod + 2*activeInterval + lag + tables
	case "fin_wait2_pileup": // two tables must have a socket, and old counts are kept for a while
		return 2*minWaiting + halfClosedInterval + lag + tables, quietPeriod + 2*activeInterval + lag + tables
	case "listen_queue_full": // see judgeListeners
		return 14*time.Second + lag + tables, quietPeriod + queuedInterval + lag + tables + o.unreadListeners()
	}
	return lag, quietPeriod + lag
}

// see judges a cause now.
func (o *simOracle) see(key simKey, may, keeps, must bool, why string) {
	v, now := o.verdict(key), o.r.k.now
	v.why = why
	if may {
		v.mayAt = now
	}
	if keeps {
		v.keepsAt = now
	}
	switch {
	case !must:
		v.mustSince = 0
	case v.mustSince == 0:
		v.mustSince = now
		o.seen[mustBe+key.kind]++
	}
	for _, x := range o.open {
		if x.Kind == key.kind && o.isAbout(x, key) {
			v.openAt = now
		}
	}
	opens, _ := o.patience(key.kind)
	if must && now-max(v.openAt, v.mustSince) > opens {
		o.fault("missed: %s since %v, %s", key, v.mustSince-time.Hour, why)
		v.mustSince = 0
	}
}

func (o *simOracle) verdict(key simKey) *simVerdict {
	v := o.others[key]
	if v == nil {
		v = &simVerdict{}
		o.others[key] = v
	}
	return v
}

func (k simKey) String() string {
	return fmt.Sprintf("%s of %v:%d, server %v, pid %d", k.kind, k.to.key.peer, k.to.key.peerPort, k.to.server, k.pid)
}

// isAbout reports whether an alert has this cause.
func (o *simOracle) isAbout(x *simAlert, key simKey) bool {
	switch {
	case x.Kind == "close_wait_leak" && x.Role == tcp.RoleClient:
		return key.pid > 0 && x.Culprit.Comm == o.r.processes[key.pid-firstPID].owner.Comm
	case x.Kind == "close_wait_leak":
		return key.pid == 0
	case x.Role == tcp.RoleListener:
		return key.to.key.peerPort == x.Local.Port
	case x.Role == tcp.RoleServer:
		return key.to.server
	}
	return !key.to.server && x.Peer == tcp.Endpoint{Addr: key.to.key.peer, Port: key.to.key.peerPort}
}

// agrees reports whether the perfect observer would have opened an alert, and would keep it open.
func (o *simOracle) agrees(x *simAlert) (bool, string) {
	why := "there is no such thing"
	opens, closes := o.patience(x.Kind)
	if x.Kind == "listen_queue_full" { // it is the kernel's table that may be older
		opens = unacceptedInterval + queuedInterval + 3*o.answerTime() + o.unreadListeners()
	}
	for key, v := range o.others {
		if key.kind != x.Kind || !o.isAbout(x, key) {
			continue
		}
		if why = v.why; o.r.k.now-v.keepsAt <= closes && x.openedAt-v.mayAt <= opens+time.Second {
			return true, why
		}
	}
	return false, why
}

// judgeOthers judges the kinds without a capacity.
func (o *simOracle) judgeOthers() {
	for _, d := range o.r.k.destinations {
		o.judgeOutcomes(simKey{kind: "connect_failures", to: d}, 50, &d.refused, &d.seenRefused, &d.opened)
		o.judgeOutcomes(simKey{kind: "reset_burst", to: d}, 100, &d.resets, &d.seenResets, &d.allEnds)
		o.judgeHalfClosed(d)
	}
	o.judgeLeaks()
	o.judgeListeners()
}

func (o *simOracle) judgeOutcomes(key simKey, limit int, bad, seenBad, all *simCount) {
	tr := o.r.tr
	n, seen := bad.within(11*time.Second), seenBad.within(9*time.Second)
	may, keeps := 20*n >= 19*limit, 20*n >= 19*limit/2
	if tr.passes == nil && (tr.lostAt == 0 || o.r.k.now-tr.lostAt > 12*time.Second) { // else of how many is not known
		may = may && 21*n >= 10*all.within(9*time.Second)
		keeps = keeps && 21*n >= 5*all.within(9*time.Second)
	}
	must := 20*seen >= 21*limit && 20*seen >= 11*all.within(11*time.Second) && o.r.k.now-tr.began > 11*time.Second
	o.see(key, may, keeps, must, fmt.Sprintf("%d of %d within 11 s, %d seen within 9 s", n, all.within(11*time.Second), seen))
}

func (o *simOracle) judgeHalfClosed(d *simDestination) {
	k, tr, limit := o.r.k, o.r.tr, o.r.config.HalfClosed
	key := simKey{kind: "fin_wait2_pileup", to: d}
	n := o.halfClosed[d]
	opens, _ := o.patience("fin_wait2_pileup")
	isRead := o.isReadable() && k.now-tr.worker.failedAt > opens // else it waits for one more table
	must := 20*n.seen >= 21*limit && k.now-tr.began > 20*time.Second && isRead
	may := 20*n.all >= 19*limit
	o.see(key, may, 20*n.all >= 19*limit/2, must, fmt.Sprintf("%d in FIN_WAIT2, %d for 5 s, %d of them seen", n.all, n.old, n.seen))
}

// simHalfClosed counts the sockets of a destination in FIN_WAIT2.
type simHalfClosed struct {
	all   int
	old   int // for at least minWaiting
	older int // for so long that two tables must have had them
	seen  int // for so long that two tables may have had them; their transitions have reached the engine, and they will not expire soon
}

// countHalfClosed counts them after each step.
func (o *simOracle) countHalfClosed() {
	// A socket counts once two tables have it. The second table is requested minWaiting after the
	// first one has come, or a second later, and then takes its time.
	// Others request tables, too: then one comes every halfClosedInterval.
	tablesApart := minWaiting + suspectedInterval + o.answerTime()
	o.halfClosed = make(map[*simDestination]simHalfClosed)
	for _, s := range o.r.k.sockets {
		if s.state != tcp.FinWait2 {
			continue
		}
		n := o.halfClosed[s.to]
		n.all++
		age := o.r.k.now - s.createdAt
		if age >= minWaiting {
			n.old++
		}
		if age >= tablesApart+2*halfClosedInterval {
			n.older++
		}
		if age >= tablesApart && s.seenEnd && age < 55*time.Second {
			n.seen++
		}
		o.halfClosed[s.to] = n
	}
	for _, d := range o.r.k.destinations {
		v, n := o.verdict(simKey{kind: "fin_wait2_pileup", to: d}), o.halfClosed[d]
		v.counts, v.older = append(v.counts, n.old), append(v.older, n.older)
	}
}

// judgeLeaks: sockets whose number grows, and a constant number, are judged; what lies between,
// such as a number that grows by a fifth, is not.
func (o *simOracle) judgeLeaks() {
	k := o.r.k
	stuck, seen := make(map[simKey]int), make(map[simKey]int)
	for key := range o.others {
		if key.kind == "close_wait_leak" {
			stuck[key] = 0
		}
	}
	for _, s := range k.sockets {
		if s.state != tcp.CloseWait || s.sends || s.load.ends == unaccepted || k.now-s.closeWaitAt < 30*time.Second {
			continue // no process has a descriptor of those that none has accepted
		}
		key := simKey{kind: "close_wait_leak", to: s.to}
		if !s.to.server {
			key.pid = s.by.owner.PID
			key.to = k.destinations[0]
		}
		stuck[key]++
		if s.closeWaitSeen {
			seen[key]++
		}
	}
	for key, n := range stuck {
		v := o.verdict(key)
		v.history = append(v.history, seen[key])
		last := v.history[max(0, len(v.history)-120):]
		must := seen[key] >= 34 && k.now-o.r.tr.began > 100*time.Second && len(last) > 60 && slices.IsSorted(last) &&
			2*last[len(last)-60] < seen[key] && last[len(last)-25] < seen[key]
		v.counts = append(v.counts, n)
		o.see(key, n >= 30 && o.hasGrown(v, n), n >= 15, must, fmt.Sprintf("%d sockets have been in CLOSE_WAIT for 30 s, %d of them seen", n, seen[key]))
	}
}

// hasGrown reports whether there are now clearly more than at some time since the tracer started, within the last
// three minutes: a constant number is no leak.
func (o *simOracle) hasGrown(v *simVerdict, n int) bool {
	since := min(3*time.Minute, o.r.k.now-o.r.tr.began)
	return 100*slices.Min(lastOf(v.counts, int(since/(time.Second/2)))) <= 85*n
}

// lastOf are the newest of numbers: the last one, and count before it.
func lastOf(numbers []int, count int) []int { return numbers[max(0, len(numbers)-1-count):] }

// checkHalfClosed judges the number of an alert: it is that of the newest table, and those that have waited for
// minWaiting count, once a second table has had them.
func (o *simOracle) checkHalfClosed(x *simAlert) {
	age := minWaiting + 2*suspectedInterval + 3*o.answerTime()
	switch {
	case o.mayLackTables() && x.Unverified:
		age = finWait2KeptFor + 3*o.answerTime()
	case o.mayLackTables():
		age = 2*activeInterval + 3*o.answerTime()
	}
	for key, v := range o.others {
		if key.kind != x.Kind || !o.isAbout(x, key) || len(v.counts) == 0 {
			continue
		}
		least, most := slices.Min(lastOf(v.older, int(age/simStep))), slices.Max(lastOf(v.counts, int(age/simStep)))
		if o.r.tr.worker.fails > 0 {
			least = 0 // a socket may have been in one table only
		}
		if n := int(x.Occupancy); n < least || n > most {
			o.fault("%s %s %s: %d sockets, there were %d to %d", x.Kind, x.ID, x.Phase, n, least, most)
		}
	}
}
