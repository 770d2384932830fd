package detect

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/detect/rate"
)

// reachesBucketsFirst reports whether the namespace reaches tcp_max_tw_buckets before a destination, which has some
// TIME_WAITs now, gets as many as it needs to take its last port.
func (tr *tracker) reachesBucketsFirst(key destination, u *destinationUse, ns *namespace, needs, has float64) bool {
	return ns.attainable(tr.now, u, has) < needs && float64(ns.limits.MaxTimeWaits)-tr.mostOfOthers(key, u, ns, has) < needs
}

// attainable is how many TIME_WAITs a destination can get at most, which has some now. Once the namespace
// has tcp_max_tw_buckets of them, each that ends makes room for a new one of any destination: each
// destination gets a share by how many it creates.
func (ns *namespace) attainable(now time.Duration, u *destinationUse, has float64) float64 {
	most := float64(ns.limits.MaxTimeWaits)
	ns.notReusable.Advance(now)
	ns.reusable.Advance(now)
	created, all := u.CreatedWithin(rate.MaxWindow), ns.notReusable.CreatedWithin(rate.MaxWindow)+ns.reusable.CreatedWithin(rate.MaxWindow)
	if created == 0 || created >= all {
		return most
	}
	share := float64(created) / float64(all)
	return max(share*most, has+share*max(0, most-ns.timeWaitsNow()))
}

// timeWaitsNow is how many TIME_WAITs the namespace has, by the kernel's count or by the model.
func (ns *namespace) timeWaitsNow() float64 {
	return max(float64(ns.limits.TimeWaits), ns.notReusable.TimeWaits(ns.model()))
}

// mostOfOthers is how many TIME_WAITs all other connections of the namespace keep at most, if they go on as within
// the last 16 s: as many as they have now, or as they create within a hold time. Those that connect() takes over
// are replaced, so a destination has no more of them than it has ports.
func (tr *tracker) mostOfOthers(key destination, u *destinationUse, ns *namespace, has float64) float64 {
	const perHold = float64(rate.TimeWaitHold) / float64(rate.MaxWindow)
	here, there := ns.notReusable.CreatedWithin(rate.MaxWindow), ns.reusable.CreatedWithin(rate.MaxWindow)
	if ns.takesOver(key, u) {
		there = max(0, there-u.CreatedWithin(rate.MaxWindow))
	} else {
		here = max(0, here-u.CreatedWithin(rate.MaxWindow))
	}
	replaced := min(perHold*float64(there), float64(ns.ports*tr.reusing(ns, key, u)))
	return max(ns.timeWaitsNow()-has, perHold*float64(here)+replaced)
}

// reusing counts the destinations of a namespace, without one, that leave TIME_WAITs which connect() takes over. It
// counts them once a second.
func (tr *tracker) reusing(ns *namespace, but destination, butUse *destinationUse) int {
	if ns.reusingAt != tr.swept {
		ns.reusingAt, ns.reusing = tr.swept, 0
		for _, e := range tr.destinations.Entries() {
			if timeWaits, finWait2 := e.Value.RecordedTimeWaits(); e.Key.netns == but.netns && timeWaits+finWait2 > 0 && ns.takesOver(e.Key, &e.Value) {
				ns.reusing++
			}
		}
	}
	if ns.takesOver(but, butUse) {
		return ns.reusing - 1
	}
	return ns.reusing
}
