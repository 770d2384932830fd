package monitor

import (
	"runtime"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/boottime"
	"github.com/tcpshift/tcpshift/internal/cputime"
	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Readings that are asked for as often as possible take at most a second of CPU in any minute,
// and leave half of what is left to the urgent ones.
func TestBudget_SecondInAMinute(t *testing.T) {
	for _, cost := range []time.Duration{time.Millisecond, 15 * time.Millisecond, 100 * time.Millisecond} {
		for _, urgent := range []bool{false, true} {
			var b budget
			var reads []time.Duration
			now := time.Hour
			for ; now < time.Hour+5*time.Minute; now += 40 * time.Millisecond {
				if b.allows(now, urgent) {
					b.spent += cost
					reads = append(reads, now)
				}
			}
			for i, first := range reads {
				within := 0
				for _, at := range reads[i:] {
					if at-first < time.Minute {
						within++
					}
				}
				if total := time.Duration(within) * cost; total > time.Second+cost {
					t.Fatalf("%v each, urgent %v: %v within a minute", cost, urgent, total)
				}
			}
			if least := int(2 * time.Second / cost); len(reads) < least {
				t.Errorf("%v each, urgent %v: %d readings in five minutes, want at least %d", cost, urgent, len(reads), least)
			}
			if !urgent && !b.allows(now, true) {
				t.Errorf("%v each: nothing is left for what is urgent", cost)
			}
		}
	}
}

// The time that a reading takes is charged.
func TestBudget_Charges(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var b budget
	err := b.charge(func() error {
		for timer := cputime.Start(); timer.Elapsed() < 5*time.Millisecond; {
		}
		return nil
	})
	if err != nil || b.spent < 5*time.Millisecond || b.spent > 500*time.Millisecond {
		t.Errorf("%v, %v", b.spent, err)
	}
}

// Without budget nothing is read, and what is not read is not passed on.
func TestWorker_ReadsNothingWithoutBudget(t *testing.T) {
	w := worker{budget: budget{spent: time.Hour, at: boottime.Now()}}
	var read tables
	err := w.readTables(detect.Request{HalfClosed: true, CloseWait: true, OpenRequestedAt: 1, Suspects: &detect.Suspects{}}, &tcp.Limits{}, &read)
	if err != nil || read.hasHalfClosed || read.hasCloseWait || read.open != nil || read.suspects != nil {
		t.Errorf("%+v, %v", read, err)
	}
}

// Where the budget allows one table at a time, the four kinds take turns.
func TestWorker_TablesTakeTurns(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var w worker
	request := detect.Request{HalfClosed: true, CloseWait: true, OpenRequestedAt: 1, Suspects: &detect.Suspects{Urgent: true}}
	reads := make(map[string]int)
	const rounds = 3
	for range 4 * rounds {
		w.budget = budget{spent: budgetBurst - 1, at: boottime.Now()}
		var read tables
		if err := w.readTables(request, &tcp.Limits{}, &read); err != nil {
			t.Fatal(err)
		}
		for kind, isRead := range map[string]bool{
			"suspects": read.suspects != nil, "open": read.open != nil,
			"half closed": read.hasHalfClosed, "CLOSE_WAIT": read.hasCloseWait,
		} {
			if isRead {
				reads[kind]++
			}
		}
	}
	for _, kind := range []string{"suspects", "open", "half closed", "CLOSE_WAIT"} {
		if reads[kind] != rounds {
			t.Errorf("in %d readings of one table each, %s: %d, want %d", 4*rounds, kind, reads[kind], rounds)
		}
	}
}
