package detect

import "time"

// goneFor is how long a namespace must have been missing, and its sockets unseen, before a leak in it is given up
// because of lost transitions. It is not longer than unverifiedAfter, so that no alert opens meanwhile.
const goneFor = 30 * time.Second

// seekLost requests the tables of namespaces with sockets whose ends may be lost: there was a loss since the newest table,
// or that lacked a socket for the first time. It does so for leaks of any size: else what a loss leaves of short-lived
// processes would fill the table of leaks.
func (d *closeWaitLeak) seekLost() {
	if d.lostAt == 0 || d.now-d.soughtAt < time.Second {
		return
	}
	d.soughtAt = d.now
	for key, l := range d.leaks {
		if l.sockets > 0 && (l.unseen > 0 || d.lostAt > d.tableReadAt(key.netns)) {
			d.requestTable(key.netns, activeInterval)
		}
	}
}

// giveUp forgets the leaks whose sockets have probably ended, and the transitions that ended them were lost: neither a
// table nor a further socket was seen for unreadableFor; or for goneFor, if mayHaveEnded.
func (d *closeWaitLeak) giveUp() {
	ended, doubtful := d.endedLeaks()
	if doubtful != nil && d.now-d.weighedAt >= time.Second { // it walks all sockets
		d.weighedAt = d.now
		d.countNewer(doubtful)
		for l, newer := range doubtful {
			if d.mayHaveEnded(l, newer) {
				ended = with(ended, l, true)
			}
		}
	}
	if ended == nil {
		return
	}
	for cookie, w := range d.waiting {
		if ended[w.leak] {
			d.leave(cookie, false)
		}
	}
	for l := range ended {
		d.deleteLeak(l.key)
	}
}

// endedLeaks returns the leaks whose sockets have ended, as far as can be seen, and those about which mayHaveEnded
// decides. Those that keep no alert open need no such decision. Either may be nil.
func (d *closeWaitLeak) endedLeaks() (ended map[*leak]bool, doubtful map[*leak]int) {
	for _, l := range d.leaks {
		small, lost := l.stuck.count <= d.CloseWaitCount/2, d.lostTotal > l.lostBefore && d.isGone(l, goneFor)
		switch {
		case small && l.sockets > 0 && (lost || d.isGone(l, unreadableFor)):
			ended = with(ended, l, true)
		case small:
		case d.now-max(l.lastArrival+d.CloseWaitAge, l.checkedAt) > unreadableFor:
			ended = with(ended, l, true)
		case lost:
			doubtful = with(doubtful, l, 0)
		}
	}
	return ended, doubtful
}

// isGone reports whether the namespace of a leak could not be read, and its sockets were not seen, for a time.
func (d *closeWaitLeak) isGone(l *leak, unseenFor time.Duration) bool {
	return d.now-max(l.lastArrival, l.checkedAt) > unseenFor && d.netnsGone.lasts(d.now, l.key.netns, unseenFor)
}

// with is m with one more entry; m may be nil.
func with[T any](m map[*leak]T, l *leak, value T) map[*leak]T {
	if m == nil {
		m = make(map[*leak]T)
	}
	m[l] = value
	return m
}

// countNewer counts, for each of these leaks, the sockets that have entered CLOSE_WAIT after the last loss.
func (d *closeWaitLeak) countNewer(of map[*leak]int) {
	for _, w := range d.waiting {
		if newer, asked := of[w.leak]; asked && w.stuck && time.Duration(w.at)*time.Second > d.lostAt {
			of[w.leak] = newer + 1
		}
	}
}

// mayHaveEnded reports whether so many transitions were lost since the newest table that the leak may have no more
// sockets than keep an alert open. newer is how many of its sockets are newer than the last loss. A container that ends
// takes its namespace with it.
func (d *closeWaitLeak) mayHaveEnded(l *leak, newer int) bool {
	older := uint64(l.stuck.count - newer)
	return l.stuck.count-int(min(older, d.lostTotal-l.lostBefore)) <= d.CloseWaitCount/2
}
