package output

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// reserve is what may wait beyond a Queue's limit: room for what must not be
	// lost. Where that is taken, too, Put waits.
	reserve = 4 << 20
	// A file system keeps what is written in pieces as large as the writes, and each piece
	// costs it the same; beyond this little is left to gain. A pipe has room for less.
	fileBatch, batch = 256 << 10, 64 << 10
	// spares is how many empty buffers are kept, two megabytes of them. Two change places
	// while all is well.
	spares = 8
	// A disk on which a write has taken so long, more than a busy CPU makes it wait, is
	// written to in the background for a while: the next ones may take longer. The
	// ring has room for some of them.
	slow, rest = 100 * time.Millisecond, 10 * time.Second
	// roomEvery is how often a full disk is tried again.
	roomEvery = 200 * time.Millisecond
	// patience is how long a reader may take at the end before somebody is told.
	patience = 5 * time.Second
)

// Queue writes to an Output in the background, so that a reader who stalls, or a
// disk that is full, does not stall whoever makes the lines. What waits is bounded.
// Its methods are for one goroutine, as those of Output are.
type Queue struct {
	out      *Output
	limit    int // bytes
	tell     func(message string)
	patience time.Duration

	full    atomic.Bool
	written atomic.Uint64
	ending  chan struct{} // closed by the first Drain

	mu      sync.Mutex
	changed sync.Cond
	waiting [][]byte // in their order
	spare   [][]byte
	size    int       // bytes of what waits and of what is being written
	calm    time.Time // until then the disk was slow, or may be
	err     error     // of a write: no other follows
	closed  bool
	ended   sync.WaitGroup
}

// NewQueue begins to write to out, which then is the Queue's until it is closed.
// limit is in bytes. tell is given what an operator should know of: a disk that is
// full, a reader who keeps it from ending. It may be called from any goroutine.
func NewQueue(out *Output, limit int, tell func(message string)) *Queue {
	q := &Queue{out: out, limit: limit, tell: tell, patience: patience, ending: make(chan struct{})}
	q.changed.L = &q.mu
	q.ended.Go(q.run)
	return q
}

// Batch is how many bytes are best put in at a time, where there are as many.
func (q *Queue) Batch() int {
	if q.out.disk {
		return fileBatch
	}
	return batch
}

// Put takes whole lines, and their buffer with them: the caller goes on with the
// one that it gets, which is empty. It waits only where the reserve is taken. It
// fails with the error of an earlier write, see [Output.Write].
func (q *Queue) Put(lines []byte) ([]byte, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.size >= q.limit+reserve && q.err == nil {
		q.changed.Wait()
	}
	if q.err != nil {
		return lines[:0], q.err
	}
	if q.size == 0 {
		var done bool
		if lines, done = q.writeNow(lines); done {
			return lines[:0], q.err
		}
	}
	q.size += len(lines)
	if q.size >= q.limit {
		q.full.Store(true)
	}
	defer q.changed.Broadcast()
	// Few lines at a time must not take a buffer each.
	if last := len(q.waiting) - 1; last >= 0 && len(q.waiting[last])+len(lines) <= cap(q.waiting[last]) {
		q.waiting[last] = append(q.waiting[last], lines...)
		return lines[:0], nil
	}
	q.waiting = append(q.waiting, lines)
	if last := len(q.spare) - 1; last >= 0 {
		empty := q.spare[last]
		q.spare = q.spare[:last]
		return empty, nil
	}
	return make([]byte, 0, cap(lines)), nil
}

func (q *Queue) took(duration time.Duration) {
	if duration >= slow {
		q.calm = time.Now().Add(rest)
	}
}

// writeNow writes while nothing waits, which spares the way to another CPU: there a
// batch would be read from this one's cache. It gives what is left where the disk or
// the pipe is full.
func (q *Queue) writeNow(lines []byte) (left []byte, done bool) {
	began := time.Now()
	var n int
	var err error
	switch {
	case q.out.pipe:
		n = q.out.writeSome(lines)
	case q.out.disk && began.After(q.calm):
		n, err = q.out.Write(lines)
		q.took(time.Since(began))
	}
	q.written.Add(uint64(n))
	if err != nil && !q.out.mayGetRoom(err) {
		q.err = err
		return lines, true
	}
	if n == 0 {
		return lines, false
	}
	return lines[:copy(lines, lines[n:])], n == len(lines)
}

// Full says whether nothing should be put in but what must not be lost: from the
// limit on, until half of that has been written.
func (q *Queue) Full() bool { return q.full.Load() }

// Written is how many bytes are in the output for good.
func (q *Queue) Written() uint64 { return q.written.Load() }

// Drain waits until all is written, or writing has failed. From now on a full disk
// is a failure.
func (q *Queue) Drain() error {
	select {
	case <-q.ending:
	default:
		close(q.ending)
	}
	defer time.AfterFunc(q.patience, q.tellWhatWaits).Stop()
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.size > 0 && q.err == nil {
		q.changed.Wait()
	}
	return q.err
}

func (q *Queue) tellWhatWaits() {
	q.mu.Lock()
	size := q.size
	q.mu.Unlock()
	if size > 0 {
		q.tell(fmt.Sprintf("%d bytes wait for a reader who does not read: a second signal ends it without them", size))
	}
}

// ReaderGone is [Output.ReaderGone].
func (q *Queue) ReaderGone() bool { return q.out.ReaderGone() }

// Close ends the writing once what is being written has come through. What waits
// behind it is lost: Drain first.
func (q *Queue) Close() {
	q.mu.Lock()
	q.closed = true
	q.changed.Broadcast()
	q.mu.Unlock()
	q.ended.Wait()
}

func (q *Queue) run() {
	for {
		lines, more := q.next()
		if !more {
			return
		}
		began := time.Now()
		err := q.write(lines)
		q.finish(lines, time.Since(began), err)
	}
}

func (q *Queue) next() (lines []byte, more bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.waiting) == 0 && !q.closed {
		q.changed.Wait()
	}
	if q.closed || q.err != nil {
		return nil, false
	}
	lines = q.waiting[0]
	q.waiting = slices.Delete(q.waiting, 0, 1)
	return lines, true
}

// write gives up on a full disk only when nothing more is going to come.
func (q *Queue) write(lines []byte) error {
	for told := false; ; told = true {
		n, err := q.out.Write(lines)
		q.written.Add(uint64(n))
		if err == nil || !q.out.mayGetRoom(err) {
			return err
		}
		select {
		case <-q.ending:
			return err
		default:
		}
		if !told {
			q.tell(err.Error() + ": it goes on when there is room again")
		}
		lines = lines[n:]
		select {
		case <-q.ending:
		case <-time.After(roomEvery):
		}
	}
}

func (q *Queue) finish(lines []byte, took time.Duration, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.took(took)
	q.size -= len(lines)
	q.err = err
	if q.size <= q.limit/2 || err != nil { // let the next Put find the error
		q.full.Store(false)
	}
	if len(q.spare) < spares {
		q.spare = append(q.spare, lines[:0])
	}
	q.changed.Broadcast()
}
