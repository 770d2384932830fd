package report

import (
	"cmp"
	"slices"

	"github.com/tcpshift/tcpshift/internal/recording"
)

const (
	// maxAlerts bounds the alerts of a report: the warnings that come later are only counted.
	maxAlerts = 200
	// maxPoints bounds the points of one alert's occupancy: of more, each second one is left out.
	maxPoints = 200
)

type alertKey struct {
	stream int
	id     string
}

// alertLife is an alert from its opening to its close.
type alertLife struct {
	first, last recording.Record // the first and the newest of its records
	critical    bool             // at any time
	peak        uint64           // occupancy
	points      []point
	every       int // a point is kept of so many records
	skipped     int
}

// point is the occupancy of a capacity at a time.
type point struct {
	At        recording.Time
	Occupancy uint64
	Capacity  uint64
}

// alerts has one entry for each alert.
type alerts struct {
	byID  map[alertKey]*alertLife
	total uint64              // alerts by their ids, including those that have no entry
	left  map[alertKey]uint64 // of those: their records
	live  bool                // there is no end: of the alerts that are closed, the oldest give way
}

func newAlerts() alerts {
	return alerts{byID: make(map[alertKey]*alertLife), left: make(map[alertKey]uint64)}
}

// maxLeft bounds what is remembered of the alerts without an entry. Further ones count once for each record.
const maxLeft = 10000

func (a *alerts) add(s *stream, rec *recording.Record) {
	key := alertKey{s.id, cut(rec.ID, 64)}
	life := a.byID[key]
	if life == nil {
		if a.left[key] == 0 {
			a.total++
		}
		if len(a.byID) >= maxAlerts && !a.makeRoom(rec) {
			if len(a.left) < maxLeft {
				a.left[key]++
			}
			return
		}
		life = &alertLife{first: *rec, every: 1}
		a.byID[key] = life
	}
	life.add(rec)
}

// makeRoom removes a warning for an alert that is critical, and reports whether it did. Of a live report it removes the alert
// that closed first.
func (a *alerts) makeRoom(rec *recording.Record) bool {
	if a.live && a.removeClosed() {
		return true
	}
	if rec.Severity != "critical" {
		return false
	}
	for key, life := range a.byID {
		if !life.critical {
			delete(a.byID, key)
			if len(a.left) < maxLeft {
				a.left[key]++
			}
			return true
		}
	}
	return false
}

// removeClosed removes the alert that closed first, and reports whether there was one. No record of it comes any more.
func (a *alerts) removeClosed() bool {
	var oldest alertKey
	for key, life := range a.byID {
		if life.last.Phase == "close" && (oldest == alertKey{} || life.last.Time < a.byID[oldest].last.Time) {
			oldest = key
		}
	}
	_, found := a.byID[oldest]
	delete(a.byID, oldest)
	return found
}

func (l *alertLife) add(rec *recording.Record) {
	l.last = *rec
	l.critical = l.critical || rec.Severity == "critical"
	if rec.Occupancy == nil {
		return
	}
	l.peak = max(l.peak, *rec.Occupancy)
	if l.skipped++; l.skipped < l.every && rec.Phase == "update" {
		return
	}
	l.skipped = 0
	if len(l.points) == maxPoints {
		kept := l.points[:0]
		for i := 0; i < maxPoints; i += 2 {
			kept = append(kept, l.points[i])
		}
		l.points = kept
		l.every *= 2
	}
	l.points = append(l.points, point{rec.Time, *rec.Occupancy, rec.Capacity})
}

// sorted returns the alerts in the order in which they opened.
func (a *alerts) sorted() []*alertLife {
	all := make([]*alertLife, 0, len(a.byID))
	for _, life := range a.byID {
		all = append(all, life)
	}
	slices.SortFunc(all, func(x, y *alertLife) int {
		return cmp.Or(cmp.Compare(x.first.Time, y.first.Time), cmp.Compare(x.first.ID, y.first.ID))
	})
	return all
}
