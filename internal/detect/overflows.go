package detect

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/detect/rate"
)

// closesWindow is the time over which the rate of closes is taken in a namespace that has about as many TIME_WAITs as
// the kernel keeps. It is less than [rate.MaxWindow], which bounds how old the oldest reading may be.
const closesWindow = 8 * time.Second

// overflows is what is known of the connections of a namespace that the kernel has closed without a TIME_WAIT, because
// there were tcp_max_tw_buckets: its own counter, which comes with the limits. Transitions do not show it for certain,
// because other connections go from FIN_WAIT2 to CLOSE, too.
type overflows struct {
	readings []overflowReading // within closesWindow of the newest, the oldest first
	raisedAt time.Duration     // when the cause of the alert was raised last; 0: never
	before   int64             // the counter as read before the alert opened; -1: it was not read
}

type overflowReading struct {
	at    time.Duration
	count int64
}

// add takes a reading of the counter; -1: it could not be read.
func (o *overflows) add(now time.Duration, count int64) {
	if count < 0 {
		return
	}
	if last := o.last(); last > count { // of another namespace, which has got the inode number
		o.readings, o.before = o.readings[:0], count
	}
	if o.before < 0 {
		o.before = count
	}
	old := 0
	for old < len(o.readings) && now-o.readings[old].at > closesWindow {
		old++
	}
	o.readings = append(o.readings[:copy(o.readings, o.readings[old:])], overflowReading{now, count})
}

// last is the newest reading, -1 if there is none.
func (o *overflows) last() int64 {
	if len(o.readings) == 0 {
		return -1
	}
	return o.readings[len(o.readings)-1].count
}

// raised takes a claim about the cause of the alert, which opens the alert unless it is open already.
func (o *overflows) raised(now time.Duration, c claim) {
	isOpen := o.raisedAt > 0 && now-o.raisedAt < quietPeriod
	if c&opens == 0 && (!isOpen || c&keeps == 0) {
		return
	}
	if !isOpen {
		o.before = o.last()
	}
	o.raisedAt = now
}

// sinceOpened is how many connections were closed without a TIME_WAIT since the last reading before the alert opened.
func (o *overflows) sinceOpened() uint64 { return uint64(max(0, o.last()-o.before)) }

// closes is how many connections were closed per second that leave a TIME_WAIT or would have left one: those that r
// has taken, and the growth of the counter. Both are of the time between the same two readings. isKnown is false if
// there are no two readings within that time that are a second apart.
func (o *overflows) closes(now time.Duration, r *rate.Estimator) (perSecond float64, isKnown bool) {
	if len(o.readings) == 0 {
		return 0, false
	}
	first, last := o.readings[0], o.readings[len(o.readings)-1]
	span := last.at - first.at
	if span < time.Second || now-first.at > rate.MaxWindow {
		return 0, false
	}
	kept := r.Taken(now-first.at) - r.Taken(now-last.at)
	return (max(0, kept) + float64(last.count-first.count)) / span.Seconds(), true
}
