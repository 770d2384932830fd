package trace

import (
	"cmp"
	"slices"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// step is one update of a ledger, with the losses reported and the counts after it.
type step struct {
	counters probe.Counters
	after    time.Duration // since the step before; 0: settleTime
	final    bool
	losses   []record.Loss
	counts   record.Counts
}

func primary(c probe.ProgramCounters) probe.Counters { return probe.Counters{c} }

var ledgerCases = []struct {
	name  string
	steps []step
}{
	{"nothing happens, nothing is lost", []step{
		{},
		{final: true},
	}},
	{"every term is the sum of all programs, from the right counter", []step{{
		counters: probe.Counters{
			{
				Missed: 1000, Entered: 9000, Deduplicated: 5, OtherProtocol: 20, Filtered: 300, Emitted: 8000, RingFull: 600, RingBusy: 80,
			},
			{
				Missed: 7, Entered: 9990, Deduplicated: 9000, OtherProtocol: 1, Filtered: 2, Emitted: 3, RingFull: 4, RingBusy: 5,
			},
		},
		final:  true,
		losses: []record.Loss{{Lost: 604, Cause: "ring_full"}, {Lost: 85, Cause: "ring_busy"}, {Lost: 985, Cause: "reentry"}},
		counts: record.Counts{
			Fired: 10000, Entered: 9000, Missed: 1000, OtherProtocol: 21, Filtered: 302, LostRingFull: 604, LostRingBusy: 85,
			LostReentry: 985,
		},
	}}},
	{"a chain of three counts every program, and what fired by the first alone", []step{
		{
			counters: probe.Counters{{Missed: 10, Entered: 90, Emitted: 90}, {Missed: 12, Entered: 88, Deduplicated: 80, Emitted: 8}, {Entered: 100, Deduplicated: 97, Emitted: 1, Filtered: 2}},
			final:    true,
			losses:   nil,
			counts:   record.Counts{Fired: 100, Entered: 90, Missed: 10, Filtered: 2},
		},
	}},
	{"in a chain of three an event that every program missed is lost", []step{
		{
			counters: probe.Counters{{Missed: 4, Entered: 6, Emitted: 6}, {Missed: 3, Entered: 7, Deduplicated: 5, RingFull: 2}, {Missed: 1, Entered: 9, Deduplicated: 8, RingBusy: 1}},
			final:    true,
			losses:   []record.Loss{{Lost: 2, Cause: "ring_full"}, {Lost: 1, Cause: "ring_busy"}, {Lost: 1, Cause: "reentry"}},
			counts:   record.Counts{Fired: 10, Entered: 6, Missed: 4, LostRingFull: 2, LostRingBusy: 1, LostReentry: 1},
		},
	}},
	{"in a chain of three an event may be deferred by one program and resumed by another", []step{{
		counters: probe.Counters{{Entered: 2, Deferred: 1, Missed: 1}, {Entered: 2, Missed: 1, Deduplicated: 1, Deferred: 1}, {Entered: 3, Resumed: 1, Deduplicated: 2, Emitted: 2}},
		final:    true,
		counts:   record.Counts{Fired: 3, Entered: 2, Missed: 1, Deferred: 1, LostReentry: 0},
	}}},
	{"an event in progress is not lost", []step{
		{counters: primary(probe.ProgramCounters{Entered: 1}), counts: record.Counts{Fired: 1, Entered: 1}},
		{
			counters: primary(probe.ProgramCounters{Entered: 2, Emitted: 1}),
			counts:   record.Counts{Fired: 2, Entered: 2},
		},
		{
			counters: primary(probe.ProgramCounters{Entered: 2, Emitted: 2}), final: true,
			counts: record.Counts{Fired: 2, Entered: 2},
		},
	}},
	{"an event that several readings in a row find in progress is not lost", []step{
		{counters: primary(probe.ProgramCounters{Entered: 1}), counts: record.Counts{Fired: 1, Entered: 1}},
		{counters: primary(probe.ProgramCounters{Entered: 1}), after: time.Microsecond, counts: record.Counts{Fired: 1, Entered: 1}},
		{counters: primary(probe.ProgramCounters{Entered: 1}), after: settleTime / 2, counts: record.Counts{Fired: 1, Entered: 1}},
		{
			counters: primary(probe.ProgramCounters{Entered: 1, Emitted: 1}), after: settleTime / 2,
			counts: record.Counts{Fired: 1, Entered: 1},
		},
	}},
	{"an event that the backup program has not handled yet is not lost", []step{
		{counters: primary(probe.ProgramCounters{Missed: 3}), counts: record.Counts{Fired: 3, Missed: 3}},
		{
			counters: probe.Counters{
				{Missed: 3}, {Entered: 3, Emitted: 2, Filtered: 1},
			},
			counts: record.Counts{Fired: 3, Missed: 3, Filtered: 1},
		},
	}},
	{"a firing that has no outcome at the next update is lost, and is reported once", []step{
		{counters: primary(probe.ProgramCounters{Missed: 5}), counts: record.Counts{Fired: 5, Missed: 5}},
		{
			counters: primary(probe.ProgramCounters{Missed: 5}), losses: []record.Loss{{Lost: 5, Cause: "reentry"}},
			counts: record.Counts{Fired: 5, Missed: 5, LostReentry: 5},
		},
		{
			counters: primary(probe.ProgramCounters{Missed: 5}),
			counts:   record.Counts{Fired: 5, Missed: 5, LostReentry: 5},
		},
		{
			counters: primary(probe.ProgramCounters{Missed: 5}), final: true,
			counts: record.Counts{Fired: 5, Missed: 5, LostReentry: 5},
		},
	}},
	{"under load an interim account counts too few losses rather than too many, and the final one is exact", []step{
		{counters: primary(probe.ProgramCounters{Missed: 5, Entered: 100, Emitted: 100}), counts: record.Counts{
			Fired: 105, Missed: 5, Entered: 100,
		}},
		{
			counters: primary(probe.ProgramCounters{Missed: 5, Entered: 103, Emitted: 103}),
			losses:   []record.Loss{{Lost: 2, Cause: "reentry"}},
			counts:   record.Counts{Fired: 108, Missed: 5, Entered: 103, LostReentry: 2},
		},
		{
			counters: primary(probe.ProgramCounters{Missed: 5, Entered: 200, Emitted: 200}),
			counts:   record.Counts{Fired: 205, Missed: 5, Entered: 200, LostReentry: 2},
		},
		{
			counters: primary(probe.ProgramCounters{Missed: 5, Entered: 200, Emitted: 200}), final: true,
			losses: []record.Loss{{Lost: 3, Cause: "reentry"}},
			counts: record.Counts{Fired: 205, Missed: 5, Entered: 200, LostReentry: 5},
		},
	}},
	{"each cause is reported with its increase", []step{
		{
			counters: primary(probe.ProgramCounters{Entered: 10, Emitted: 3, RingFull: 7}),
			losses:   []record.Loss{{Lost: 7, Cause: "ring_full"}},
			counts:   record.Counts{Fired: 10, Entered: 10, LostRingFull: 7},
		},
		{
			counters: primary(probe.ProgramCounters{Entered: 13, Emitted: 3, RingFull: 8, RingBusy: 2}),
			losses:   []record.Loss{{Lost: 1, Cause: "ring_full"}, {Lost: 2, Cause: "ring_busy"}},
			counts:   record.Counts{Fired: 13, Entered: 13, LostRingFull: 8, LostRingBusy: 2},
		},
		{
			counters: primary(probe.ProgramCounters{Entered: 13, Emitted: 3, RingFull: 8, RingBusy: 2}), final: true,
			counts: record.Counts{Fired: 13, Entered: 13, LostRingFull: 8, LostRingBusy: 2},
		},
	}},
	{"an event whose outcome comes after it was reported lost is not lost in the final account", []step{
		{counters: primary(probe.ProgramCounters{Entered: 4}), counts: record.Counts{Fired: 4, Entered: 4}},
		{
			counters: primary(probe.ProgramCounters{Entered: 4}), losses: []record.Loss{{Lost: 4, Cause: "reentry"}},
			counts: record.Counts{Fired: 4, Entered: 4, LostReentry: 4},
		},
		{
			counters: primary(probe.ProgramCounters{Entered: 4, Emitted: 4}), final: true,
			counts: record.Counts{Fired: 4, Entered: 4},
		},
	}},
	{"a deferred event is not lost, and may be resumed by either program", []step{
		{
			counters: primary(probe.ProgramCounters{Entered: 3, Emitted: 1, Deferred: 2}),
			counts:   record.Counts{Fired: 3, Entered: 3, Deferred: 2},
		},
		{
			counters: probe.Counters{
				{Entered: 4, Missed: 1, Emitted: 2, Deferred: 2, Deduplicated: 0},
				{Entered: 5, Deduplicated: 3, Emitted: 2, Deferred: 1, Resumed: 1},
			},
			counts: record.Counts{Fired: 5, Entered: 4, Missed: 1, Deferred: 2},
		},
		{
			counters: probe.Counters{
				{Entered: 4, Missed: 1, Emitted: 2, Deferred: 2},
				{Entered: 5, Deduplicated: 3, Emitted: 2, Deferred: 1, Resumed: 1},
			},
			final: true, losses: []record.Loss{}, counts: record.Counts{Fired: 5, Entered: 4, Missed: 1, Deferred: 2, LostReentry: 0},
		},
	}},
	{"an event that is counted as resumed before it is counted as deferred makes no count negative", []step{
		{
			counters: probe.Counters{{Entered: 2}, {Resumed: 1, Emitted: 1}},
			counts:   record.Counts{Fired: 2, Entered: 2},
		},
		{
			counters: probe.Counters{
				{Entered: 2, Deferred: 1}, {Resumed: 1, Emitted: 2},
			},
			final: true, counts: record.Counts{Fired: 2, Entered: 2},
		},
	}},
	{"inconclusive searches, lost resets and lost ends of TIME_WAITs are counted for all programs, and are in no sum", []step{{
		counters: probe.Counters{
			{Entered: 9, Emitted: 9, TimeWaitUnknown: 2, LostResets: 1, TimeWaitEndsLost: 3},
			{Entered: 9, Deduplicated: 9, TimeWaitUnknown: 4, LostResets: 6, TimeWaitEndsLost: 5},
		},
		final: true, counts: record.Counts{Fired: 9, Entered: 9, TimeWaitUnknown: 6, LostResets: 7, TimeWaitEndsLostKernel: 8},
	}}},
	{"an event handled twice, so that more were emitted than fired, is not a loss", []step{{
		counters: primary(probe.ProgramCounters{Entered: 4, Emitted: 5}), final: true,
		counts: record.Counts{Fired: 4, Entered: 4},
	}}},
}

// Losses and counts follow from a sequence of readings of the kernel's counters.
func TestLedger_Update(t *testing.T) {
	for _, tt := range ledgerCases {
		t.Run(tt.name, func(t *testing.T) {
			var l kernelLedger
			var a account
			at := time.Now()
			for i, s := range tt.steps {
				at = at.Add(cmp.Or(s.after, settleTime))
				fresh := l.update(&s.counters, at, s.final)
				if got := a.unreported(&l); !slices.Equal(got, s.losses) {
					t.Errorf("update %d reports %v, want %v", i+1, got, s.losses)
				}
				for _, loss := range s.losses {
					fresh -= loss.Lost
				}
				if again := a.unreported(&l); again != nil || fresh != 0 {
					t.Errorf("update %d: %v is reported twice, and the number of losses is off by %d", i+1, again, fresh)
				}
				if got := a.counts(&l); got != s.counts {
					t.Errorf("update %d counts\n%+v, want\n%+v", i+1, got, s.counts)
				}
			}
		})
	}
}

// Each count of an account is in its own field of record.Counts.
func TestAccount_Counts(t *testing.T) {
	a := account{
		read: 9, dropped: 2, written: 6, connections: 3, timeWaitEnds: 4,
		lostTransitions: 1, lostConnections: 5, lostTimeWaitEnds: 8,
	}
	want := record.Counts{
		Read: 9, Dropped: 2, Written: 6, Connections: 3, TimeWaitEnds: 4, LostQueueFull: 1, LostConnections: 5, TimeWaitEndsLostQueueFull: 8,
	}
	if got := a.counts(&kernelLedger{}); got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// A transition is counted once as read and once by its disposition, the end of a
// TIME_WAIT apart from it.
func TestAccount_Disposition(t *testing.T) {
	ordinary, end := &tcp.Transition{Old: tcp.LastAck}, &tcp.Transition{Old: tcp.TimeWait}
	var a account
	for count, d := range []disposition{dropped, lostQueueFull, written} {
		for range count + 1 {
			a.record(ordinary, d)
			a.record(end, d)
		}
	}
	want := record.Counts{Read: 6, Dropped: 1, LostQueueFull: 2, Written: 3, TimeWaitEndsLostQueueFull: 2, TimeWaitEnds: 3}
	if got := a.counts(&kernelLedger{}); got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// A loss that was reported, taken back and found again is not reported a second time.
func TestAccount_LossTakenBack(t *testing.T) {
	l, a := kernelLedger{lostReentry: 5}, account{}
	a.unreported(&l)
	l.lostReentry = 3
	if got := a.unreported(&l); got != nil {
		t.Errorf("after 5 and 3 it reports %v, want nothing", got)
	}
	l.lostReentry, a.lostConnections = 6, 2
	want := []record.Loss{{Lost: 1, Cause: "reentry"}, {Cause: "queue_full", LostConnections: 2}}
	if got := a.unreported(&l); !slices.Equal(got, want) {
		t.Errorf("then it reports %v, want %v", got, want)
	}
}

// The kernel's counters are not read at one moment: an event may already be counted as
// of another protocol, and not yet as fired. Seen is 0 then.
func TestAccount_SeenNotNegative(t *testing.T) {
	var l kernelLedger
	l.update(&probe.Counters{{Entered: 1, OtherProtocol: 2}}, time.Now(), false)
	counts := (&account{}).counts(&l)
	if got := counts.Seen(); got != 0 {
		t.Errorf("%d transitions are seen, want 0", got)
	}
}
