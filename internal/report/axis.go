package report

import (
	"slices"
	"time"

	"github.com/tcpshift/tcpshift/internal/recording"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// maxBins bounds the bins of the time axis.
const maxBins = 1200

// timeWaitLength is how long the kernel keeps a TIME_WAIT: TCP_TIMEWAIT_LEN of include/net/tcp.h.
const timeWaitLength = 60 * time.Second

// widths are the widths that bins can have. Each is a multiple of the one before, so that bins can be merged.
var widths = [...]time.Duration{
	10 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second,
	time.Minute, 5 * time.Minute, 10 * time.Minute, 30 * time.Minute,
	time.Hour, 6 * time.Hour, 24 * time.Hour, 10 * 24 * time.Hour, 100 * 24 * time.Hour,
}

// ends are the values of closed_by, and last "" for an end that is not known.
var ends = append(tcp.WaysToClose(), "")

const maxEnds = 10

// endIndex is the index of a closed_by in ends.
func endIndex(closedBy string) int {
	if at := slices.Index(ends, tcp.ClosedBy(closedBy)); at >= 0 {
		return at
	}
	return len(ends) - 1
}

const timeWait = "TIME_WAIT"

// states are those of the chart, in the order of a connection's life: LISTEN and CLOSE are no part of one.
var states = [...]string{
	"SYN_SENT", "SYN_RECV", "ESTABLISHED", "CLOSE_WAIT", "LAST_ACK", "FIN_WAIT1", "FIN_WAIT2", "CLOSING", timeWait,
}

// stateIndex is the index of a state in states, or -1.
func stateIndex(state string) int { return slices.Index(states[:], state) }

// bin is what happened in one piece of the time axis.
type bin struct {
	ended     [maxEnds]uint64 // connections, by ends
	openings  uint64          // transitions that begin a connection
	opened    uint64          // by the connection records, which come at the end
	changes   [len(states)]int64
	timeWaits uint64 // that began
	// timeWaitEnds are the ends of TIME_WAITs that began within the recording.
	timeWaitEnds uint64
	lost         uint64 // records, by loss records
	missing      uint64 // records, by their numbers
}

func (b *bin) merge(o *bin) {
	for i := range o.ended {
		b.ended[i] += o.ended[i]
	}
	for i := range o.changes {
		b.changes[i] += o.changes[i]
	}
	b.openings += o.openings
	b.opened += o.opened
	b.timeWaits += o.timeWaits
	b.timeWaitEnds += o.timeWaitEnds
	b.lost += o.lost
	b.missing += o.missing
}

// slidingLevel is the index in widths of the bins of a sliding axis: of a second each.
const slidingLevel = 4

// leadBins are the first bins of a sliding axis that has left out earlier ones. They are not shown: a TIME_WAIT that began
// before them is over.
const leadBins = int64(timeWaitLength / time.Second)

// slidingLength is how far a record may be before the newest one of a sliding axis.
const slidingLength = recording.Time((maxBins - 2) * time.Second)

// axis is the time axis: at most maxBins bins of one width, which begin at multiples of it in UTC. It becomes coarser
// where a recording is longer. Its zero value is empty.
type axis struct {
	sliding bool // it leaves out its first bins instead of becoming coarser than a second
	slid    bool // it has left out bins
	// before are the sums of the bins that it has left out: how many sockets were in each state when they ended. That of
	// TIME_WAIT counts only where endsKnown.
	before    [len(states)]int64
	begun     recording.Time // the time of the first record
	level     int            // of widths
	start     int64          // the number of the first bin since 1970
	bins      []bin
	from, to  recording.Time // what show has seen
	endsKnown bool           // the recording has the ends of TIME_WAITs
}

func (a *axis) width() recording.Time { return recording.Time(widths[a.level]) }

// first and last are the times of the first and of the last record.
func (a *axis) first() recording.Time { return a.from }
func (a *axis) last() recording.Time  { return a.to }

// show notes the time of a record.
func (a *axis) show(t recording.Time) {
	if a.sliding && a.to-t > slidingLength { // the clock was set back
		*a = axis{sliding: true}
	}
	if a.begun == 0 || t < a.begun {
		a.begun = t
	}
	if a.from == 0 || t < a.from && !a.slid {
		a.from = t
	}
	a.to = max(a.to, t)
	if a.sliding {
		a.at(t)
	}
}

// clone returns a copy that shares no memory with the axis.
func (a *axis) clone() axis {
	c := *a
	c.bins = append(make([]bin, 0, maxBins), a.bins...)
	return c
}

// slide leaves out bins, so that there is a bin with the number n.
func (a *axis) slide(n int64) {
	start := n - maxBins + 1
	for i := range min(start-a.start, int64(len(a.bins))) {
		b := &a.bins[i]
		for s := range b.changes {
			a.before[s] += b.changes[s]
		}
		a.before[len(states)-1] += int64(b.timeWaits) - int64(b.timeWaitEnds)
	}
	kept := copy(a.bins[:maxBins:maxBins], a.bins[min(start-a.start, int64(len(a.bins))):])
	a.bins = a.bins[:maxBins]
	clear(a.bins[kept:])
	a.start, a.slid = start, true
	a.from = recording.Time(start+leadBins) * a.width()
}

// at returns the bin of a time. It is valid until the next call.
func (a *axis) at(t recording.Time) *bin {
	for {
		n := int64(t / a.width())
		switch {
		case len(a.bins) == 0:
			a.start = n
			a.bins = make([]bin, 1, maxBins)
		case n < a.start && a.start+int64(len(a.bins))-n <= maxBins:
			a.bins = slices.Insert(a.bins, 0, make([]bin, a.start-n)...)
			a.start = n
		case n >= a.start && n-a.start < maxBins:
			for n-a.start >= int64(len(a.bins)) {
				a.bins = append(a.bins, bin{})
			}
			return &a.bins[n-a.start]
		case a.sliding && a.level == slidingLevel && n < a.start:
			return &a.bins[0]
		case a.sliding && a.level == slidingLevel:
			a.slide(n)
		default:
			a.coarsen()
		}
	}
}

// coarsen merges bins into those of the next width. The widest bins hold all times that a record can have.
func (a *axis) coarsen() {
	ratio := int64(widths[a.level+1] / widths[a.level])
	start := a.start / ratio
	for i := range a.bins {
		to := (a.start+int64(i))/ratio - start
		if to == int64(i) {
			continue
		}
		taken := a.bins[i]
		a.bins[i] = bin{}
		a.bins[to].merge(&taken)
	}
	used := (a.start+int64(len(a.bins))-1)/ratio - start + 1
	a.bins = a.bins[:used]
	a.start = start
	a.level++
}

// interval notes that a socket was in a state from one time to another. What is before the first record does not count.
func (a *axis) interval(state int, from, to recording.Time) {
	from = max(from, a.from)
	if from >= to {
		return
	}
	a.at(from).changes[state]++
	a.at(to).changes[state]--
}

// series are numbers for each bin from the first record to the last.
type series struct {
	Start  float64 // seconds since 1970
	Width  float64 // seconds
	Ended  [maxEnds][]uint64
	Opened []uint64
	States [len(states)][]int64 // at the end of each bin
	Lost   []uint64
	Gaps   []uint64
}

// series returns the numbers. fromTransitions decides where the number of connections opened comes from.
func (a *axis) series(fromTransitions bool) series {
	a.at(a.from)
	a.at(a.to)
	skip := int64(a.from/a.width()) - a.start
	all := a.bins[:int64(a.to/a.width())-a.start+1]
	bins := all[skip:]
	s := series{Start: float64(a.from/a.width()) * widths[a.level].Seconds(), Width: widths[a.level].Seconds()}
	open := a.before
	for i := range all[:skip] {
		for st := range states {
			open[st] += all[i].changes[st]
		}
	}
	for i := range bins {
		b := &bins[i]
		for e := range b.ended {
			s.Ended[e] = append(s.Ended[e], b.ended[e])
		}
		for st := range states {
			open[st] += b.changes[st]
			s.States[st] = append(s.States[st], max(open[st], 0))
		}
		opened := b.opened
		if fromTransitions {
			opened = b.openings
		}
		s.Opened = append(s.Opened, opened)
		s.Lost = append(s.Lost, b.lost)
		s.Gaps = append(s.Gaps, b.missing)
	}
	s.States[len(states)-1] = a.openTimeWaits(all)[skip:]
	return s
}

// openTimeWaits returns how many TIME_WAITs there are at the end of each bin. Unless the recording has their ends, each
// lasts for timeWaitLength: a port that a new connection takes over earlier is not known.
func (a *axis) openTimeWaits(bins []bin) []int64 {
	length := max(1, int(timeWaitLength/widths[a.level]))
	share := min(1, float64(timeWaitLength)/float64(widths[a.level])) // of a bin that is longer
	counts := make([]int64, len(bins))
	var now int64
	if a.endsKnown {
		now = a.before[len(states)-1]
	}
	for i := range bins {
		now += int64(bins[i].timeWaits)
		switch {
		case a.endsKnown:
			now = max(0, now-int64(bins[i].timeWaitEnds))
		case i >= length:
			now -= int64(bins[i-length].timeWaits)
		}
		counts[i] = now
		if !a.endsKnown {
			counts[i] = int64(float64(now) * share)
		}
	}
	return counts
}
