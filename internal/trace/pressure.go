package trace

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/record"
)

// Sink takes whole lines and writes them in the background; [*output.Queue] is one.
type Sink interface {
	// Batch is how many bytes are best put in at a time under load.
	Batch() int
	// Put takes the lines and their buffer, and gives an empty one in exchange.
	Put(lines []byte) (empty []byte, err error)
	// Full says whether nothing should be put in but what must not be lost.
	Full() bool
	// Drain waits until all is written. After it nothing but stop comes.
	Drain() error
	// Written is how many bytes have been written.
	Written() uint64
	ReaderGone() bool
}

// A reader may be behind for so long, or until the ring is crowded: that is the room
// which a burst has. Detection waits with the ring, so this is short.
const (
	behind      = 250 * time.Millisecond
	behindCheck = time.Millisecond
)

// stalled says whether there is no room for what may be lost. What must not be
// lost is little by itself, and waits where it can be made later just as well:
// alerts come at once; stats and losses come once the reader does.
func (l *loop) stalled() bool {
	if !l.full {
		return false
	}
	if !l.losing {
		for began := time.Now(); l.Sink.Full() && !l.Source.Crowded() && time.Since(began) < behind; {
			time.Sleep(behindCheck)
		}
		l.losing = true
	}
	if !l.Sink.Full() {
		l.full, l.losing = false, false
		l.losses() // before anything else, so that it is where the records are missing
	}
	return l.full
}

// losses writes what has been lost and not yet said, one record for each cause.
func (l *loop) losses() {
	for _, loss := range l.ledger.untold() {
		if l.wants("loss") {
			loss.Time = time.Now()
			l.buf = l.numbered().Loss(l.buf, &loss)
		}
	}
}

func (l *loop) statsDue() bool {
	return l.StatsInterval > 0 && !time.Now().Before(l.statsAt)
}

func (l *loop) nextStats() {
	now := time.Now()
	l.statsAt = l.statsAt.Add(l.StatsInterval)
	if !l.statsAt.After(now) { // the reader had stalled: what is overdue comes once
		l.statsAt = now.Add(l.StatsInterval)
	}
	l.stats()
}

func (l *loop) stats() {
	if l.wants("stats") {
		r := record.Stats{Time: time.Now(), Counts: l.counts()}
		l.buf = l.numbered().Stats(l.buf, &r)
	}
}

func (l *loop) counts() record.Counts {
	c := l.ledger.counts()
	c.WrittenBytes = l.Sink.Written()
	return c
}

func (l *loop) flush() error {
	if len(l.buf) == 0 {
		return nil
	}
	return l.sink(func() (err error) {
		l.buf, err = l.Sink.Put(l.buf)
		l.full = l.losing || l.Sink.Full()
		return err
	})
}

// drain waits for the reader: it is at the end, where there is nothing else to do.
func (l *loop) drain() error {
	return l.sink(l.Sink.Drain)
}

// sink does what may fail because writing has. That fails for good, and is said once.
func (l *loop) sink(do func() error) error {
	if l.broken {
		l.buf = l.buf[:0]
		return nil
	}
	err := do()
	l.broken = err != nil
	return err
}
