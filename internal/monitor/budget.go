package monitor

import (
	"time"

	"golang.org/x/sys/unix"
)

const (
	// budgetBurst and budgetShare bound the CPU time of reading the kernel's tables of sockets
	// for the engine: half a second at once, and 1/120 of the time, so a second in any minute.
	budgetBurst = 500 * time.Millisecond
	budgetShare = 120
)

// budget is CPU time that may be spent: a token bucket. A reading that costs more than is left
// delays those that follow. It is for one goroutine.
type budget struct {
	spent time.Duration // less what has come back since
	at    time.Duration // when spent was right
}

// allows reports whether a reading may begin. One that is not urgent leaves half of the budget
// to those that are.
func (b *budget) allows(now time.Duration, urgent bool) bool {
	b.spent = max(0, b.spent-(now-b.at)/budgetShare)
	b.at = now
	if urgent {
		return b.spent < budgetBurst
	}
	return b.spent < budgetBurst/2
}

// charge runs a reading and takes its CPU time off the budget. The calling goroutine must be
// locked to its thread.
func (b *budget) charge(read func() error) error {
	began := threadTime()
	err := read()
	b.spent += threadTime() - began
	return err
}

// threadTime is the CPU time of the calling thread.
func threadTime() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
