package monitor

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/cputime"
)

const (
	// budgetBurst and budgetDivisor bound the CPU time of the tables that readTables reads: half
	// a second at once, and 1/120 of the time, so about a second in any minute, or one reading
	// that takes longer. Bound ports have a limit of their own (boundPauseFactor), the seeder none.
	budgetBurst   = 500 * time.Millisecond
	budgetDivisor = 120
)

// budget is CPU time that may be spent: a token bucket. A reading that costs more than is left
// delays those that follow. It is for one goroutine at a time.
type budget struct {
	spent time.Duration // CPU time used and not yet regained
	at    time.Duration // up to when spent counts what was regained
}

// allows reports whether a reading may begin. One that is not urgent leaves half of the budget
// to those that are.
func (b *budget) allows(now time.Duration, urgent bool) bool {
	b.spent = max(0, b.spent-(now-b.at)/budgetDivisor)
	b.at = now
	if urgent {
		return b.spent < budgetBurst
	}
	return b.spent < budgetBurst/2
}

// charge runs a reading and takes its CPU time off the budget. The calling goroutine must be
// locked to its thread.
func (b *budget) charge(read func() error) error {
	timer := cputime.Start()
	err := read()
	b.spent += timer.Elapsed()
	return err
}
