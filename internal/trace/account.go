package trace

import (
	"cmp"

	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// account counts what became of the events that one output was given. For transitions:
// read = written + dropped + lostTransitions.
type account struct {
	read, dropped, written, connections, timeWaitEnds uint64

	droppedConnections uint64 // by the output's selection
	unsampledBefore    uint64 // ends that the kernel's sample had left out when the output began to write connections

	updates, droppedUpdates, lostUpdates uint64 // of connections that live: written, not selected, lost to a full queue

	lostTransitions, lostConnections, lostTimeWaitEnds uint64           // to a full queue
	lostAlerts                                         uint64           // to a full reserve
	fullCause                                          record.LossCause // of these losses; "": CauseQueueFull
	lostSummaries                                      uint64           // to a full queue

	rejected uint64 // records, by the reader
	reported losses
}

// losses are the events and records that are missing from an output, by cause.
type losses struct {
	ringFull, ringBusy, reentry                        uint64 // in the kernel
	queueFull, queueFullConnections, queueFullTimeWait uint64 // transitions, connections, ends of TIME_WAITs
	queueFullAlerts, queueFullSummaries                uint64
	queueFullUpdates                                   uint64
	rejected                                           uint64 // by the reader
}

// disposition is what becomes of an event that was read.
type disposition int

const (
	dropped       disposition = iota // not selected
	lostQueueFull                    // the reader has stalled
	written
)

// record counts one event. The end of a TIME_WAIT is not a firing of the tracepoint,
// and is counted apart.
func (a *account) record(t *tcp.Transition, d disposition) {
	if t.IsTimeWaitEnd() {
		switch d {
		case written:
			a.timeWaitEnds++
		case lostQueueFull:
			a.lostTimeWaitEnds++
		}
		return
	}
	a.read++
	switch d {
	case written:
		a.written++
	case lostQueueFull:
		a.lostTransitions++
	case dropped:
		a.dropped++
	}
}

// unreported returns what has been lost since the last call, one record per cause, and notes it as reported.
func (a *account) unreported(k *kernelLedger) []record.Loss {
	now, before := a.losses(k), &a.reported
	if now == *before {
		return nil
	}
	var all []record.Loss
	for _, cause := range []struct {
		name        record.LossCause
		now, before uint64
	}{
		{record.CauseRingFull, now.ringFull, before.ringFull},
		{record.CauseRingBusy, now.ringBusy, before.ringBusy},
		{record.CauseReentry, now.reentry, before.reentry},
		{record.CauseRejected, now.rejected, before.rejected},
	} {
		if cause.now > cause.before {
			all = append(all, record.Loss{Lost: cause.now - cause.before, Cause: cause.name})
		}
	}
	queue := record.Loss{
		Cause:                     cmp.Or(a.fullCause, record.CauseQueueFull),
		Lost:                      now.queueFull - before.queueFull,
		LostConnections:           now.queueFullConnections - before.queueFullConnections,
		TimeWaitEndsLostQueueFull: now.queueFullTimeWait - before.queueFullTimeWait,
		LostAlerts:                now.queueFullAlerts - before.queueFullAlerts,
		LostSummaries:             now.queueFullSummaries - before.queueFullSummaries,
		LostUpdates:               now.queueFullUpdates - before.queueFullUpdates,
	}
	if queue.Lost+queue.LostConnections+queue.TimeWaitEndsLostQueueFull+queue.LostAlerts+queue.LostSummaries+queue.LostUpdates > 0 {
		all = append(all, queue)
	}
	now.reentry = max(now.reentry, before.reentry) // the final update may lower it
	*before = now
	return all
}

func (a *account) losses(k *kernelLedger) losses {
	return losses{k.ringFull(), k.ringBusy(), k.lostReentry, a.lostTransitions, a.lostConnections, a.lostTimeWaitEnds, a.lostAlerts, a.lostSummaries, a.lostUpdates, a.rejected}
}

func (a *account) counts(k *kernelLedger) record.Counts {
	first, total := &k.first, &k.total
	return record.Counts{
		Fired:         first.Fired(),
		Entered:       first.Entered,
		Missed:        first.Missed,
		OtherProtocol: total.OtherProtocol,
		Filtered:      total.Filtered,
		LostRingFull:  k.ringFull(),
		LostRingBusy:  k.ringBusy(),
		LostReentry:   k.lostReentry,
		LostQueueFull: a.lostTransitions,
		Deferred:      deferred(total),
		Read:          a.read + total.Unsampled,
		Dropped:       a.dropped + total.Unsampled,
		Written:       a.written,

		Connections:     a.connections,
		LostConnections: a.lostConnections,
		TimeWaitUnknown: total.TimeWaitUnknown,
		LostResets:      total.LostResets,

		StateUnavailable: total.StateUnavailable,

		TimeWaitEnds:              a.timeWaitEnds,
		TimeWaitEndsLostQueueFull: a.lostTimeWaitEnds,
		TimeWaitEndsLostKernel:    total.TimeWaitEndsLost,

		LostAlerts:    a.lostAlerts,
		LostSummaries: a.lostSummaries,

		Updates:        a.updates,
		DroppedUpdates: a.droppedUpdates,
		LostUpdates:    a.lostUpdates,
		MissedUpdates:  total.MissedUpdates,
	}
}
