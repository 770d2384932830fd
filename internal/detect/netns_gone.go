package detect

import "time"

// maxNetnsGone bounds the namespaces in netnsGone.
const maxNetnsGone = 1024

// netnsGone has the namespaces that cannot be read now, by inode number.
type netnsGone map[uint32]absence

// absence is the time in which a namespace cannot be read.
type absence struct {
	since, until time.Duration // the first and the newest answer that says so
	wasRead      bool          // it could be read before
}

// note takes an answer of the host about a namespace: whether it could be read, now and before.
func (g netnsGone) note(now time.Duration, netns uint32, isRead, wasRead bool) {
	a, known := g[netns]
	switch {
	case isRead:
		delete(g, netns)
	case known:
		a.until = now
		g[netns] = a
	case len(g) < maxNetnsGone || g.forget(now):
		g[netns] = absence{now, now, wasRead}
	}
}

// isMissing reports whether a namespace cannot be read any more, and nothing has happened in it since: it has probably
// vanished, with its timewait sockets.
func (tr *tracker) isMissing(netns uint32, ns *namespace) bool {
	a, missing := tr.netnsGone[netns]
	return missing && a.wasRead && ns.activeAt < a.since
}

// setUnreadable notes whether a namespace could be read. What the kernel's tables have shown of one that cannot be read is
// not verified any more: when a namespace vanishes, so do its timewait sockets, and no transition shows that.
func (tr *tracker) setUnreadable(netns uint32, ns *namespace, unreadable bool) {
	if ns.unreadable == unreadable {
		return
	}
	ns.unreadable = unreadable
	for _, e := range tr.destinations.Entries() {
		if e.Key.netns == netns {
			e.Value.kernel.unreadable = unreadable
		}
	}
}

// forget drops the namespaces about which there are no answers any more. It reports whether there were some.
func (g netnsGone) forget(now time.Duration) bool {
	before := len(g)
	for netns, a := range g {
		if now-a.until > 2*activeInterval {
			delete(g, netns)
		}
	}
	return len(g) < before
}

// lasts reports whether a namespace could not be read for a time. One that never could counts as gone only after
// unreadableFor: this process may not be able to find it.
func (g netnsGone) lasts(now time.Duration, netns uint32, unreadFor time.Duration) bool {
	a, missing := g[netns]
	return missing && now-a.since >= unreadFor && now-a.until <= 2*activeInterval && (a.wasRead || unreadFor >= unreadableFor)
}
