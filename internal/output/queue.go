package output

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// reserve is the number of bytes by which alerts may exceed a Queue's limit.
	reserve = 4 << 20
	// minSpares is how many empty buffers are kept in any case. Two are in use while the reader
	// keeps up.
	minSpares = 2
	// sparePeriod is how long buffers are kept that were needed at once.
	sparePeriod = time.Second
	// drainNotice is how long Drain waits before it notifies the operator.
	drainNotice = 5 * time.Second
	// lateDrain is how long Drain waits after Abandon for the output to take something.
	lateDrain = 300 * time.Millisecond
)

// NotWrittenError is the error of a queue that was abandoned.
type NotWrittenError struct {
	Bytes int // at most; some may be in the write that does not end
}

// Error says how many bytes were not written, and why.
func (e *NotWrittenError) Error() string {
	return fmt.Sprintf("%d bytes of output were not written: the reader or the disk did not take them in time", e.Bytes)
}

// Queue writes to an Output in the background, so that neither a reader that stalls
// nor a disk that hangs stops the goroutine that makes the lines. Its memory is bounded
// if its user respects Full and Room. What an output has moved to its spool on disk counts
// as written. Put, Drain and Close must not be called concurrently; the other methods may
// be called from any goroutine.
type Queue struct {
	out         Output
	attender    attender // out, if it is one
	spooler     spooler  // out, if it has a spool
	limit       int      // bytes
	notify      func(message string)
	drainNotice time.Duration

	full      atomic.Bool
	spoolOut  atomic.Bool // the spool has no room for ordinary records
	discarded atomic.Bool // a write waits for its reader no longer
	written   atomic.Uint64
	reopened  atomic.Uint64 // times that Reopen has succeeded
	draining  chan struct{} // closed by the first Drain

	mu        sync.Mutex // never locked during a system call
	changed   sync.Cond
	waiting   [][]byte  // the oldest batch first
	spare     [][]byte  // empty buffers
	needed    recentMax // buffers that waited at once
	size      int       // bytes that wait or are being written
	err       error     // of a write; no other write follows
	reopen    bool      // before the next write
	closed    bool
	abandoned bool
	inDrain   bool
	late      bool // Drain waits no longer
	// sizeBefore is size when Drain was last found waiting although it is abandoned.
	sizeBefore int
	writing    bool // the goroutine has a batch
	attend     bool // the output asks for attention
	attending  bool
	reopening  bool
	ended      bool // the goroutine
}

// attender is an output that has work to do although there are no lines to write.
type attender interface {
	// onWake sets the function that makes the queue call attend from its goroutine.
	onWake(wake func())
	attend()
}

// wake is called by an output, from any goroutine.
func (q *Queue) wake() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.attend = true
	q.changed.Broadcast()
}

// NewQueue starts a goroutine that writes to out, which the caller must not use until
// Close has returned. limit is in bytes. notify gets a message for the operator when the
// disk is full, when a file cannot be opened again, and when Drain waits for a reader. It
// may be called from any goroutine, and must not wait.
func NewQueue(out Output, limit int, notify func(message string)) *Queue {
	q := &Queue{out: out, limit: limit, notify: notify, drainNotice: drainNotice, draining: make(chan struct{})}
	q.changed.L = &q.mu
	if a, ok := out.(attender); ok {
		q.attender = a
		a.onWake(q.wake)
	}
	if s, ok := out.(spooler); ok {
		if _, size := s.spooled(); size > 0 {
			q.spooler = s
		}
	}
	go q.run()
	return q
}

// BatchSize is the number of bytes that one Put should have under load.
func (q *Queue) BatchSize() int { return q.out.batchSize() }

// Put takes whole lines together with their buffer, and returns an empty buffer in
// exchange. It never waits. It fails with the error of an earlier write, see [Output].
func (q *Queue) Put(lines []byte) ([]byte, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return lines[:0], q.err
	}
	q.size += len(lines)
	if q.size >= q.limit {
		q.full.Store(true)
	}
	defer q.changed.Broadcast()
	// Small batches are merged, or each would occupy a whole buffer.
	if last := len(q.waiting) - 1; last >= 0 && len(q.waiting[last])+len(lines) <= cap(q.waiting[last]) {
		q.waiting[last] = append(q.waiting[last], lines...)
		if q.isReusable(lines) {
			return lines[:0], nil
		}
		return q.empty(), nil
	}
	q.waiting = append(q.waiting, lines)
	q.needed.add(time.Now(), len(q.waiting))
	return q.empty(), nil
}

// maxSpares bounds the number of empty buffers that are kept: as many as have lately waited at
// once. A burst that comes again finds its buffers; new ones cost a page fault for each page.
func (q *Queue) maxSpares() int { return max(minSpares, q.needed.current, q.needed.last) }

// empty returns a buffer.
func (q *Queue) empty() []byte {
	if last := len(q.spare) - 1; last >= 0 {
		empty := q.spare[last]
		q.spare = q.spare[:last]
		return empty
	}
	return make([]byte, 0, q.BatchSize()+batchSlack)
}

// isReusable reports whether a buffer may be kept: many alerts at once make one grow, and it
// would stay as large.
func (q *Queue) isReusable(lines []byte) bool { return cap(lines) <= 2*(q.BatchSize()+batchSlack) }

// Full reports whether only records that must not be lost may be put: from the limit
// on, until at most half of the limit is queued.
// It also reports true while the spool has too little room for what is queued.
func (q *Queue) Full() bool { return q.full.Load() || q.spooler != nil && q.spoolFull() }

// Room is the number of bytes that may still be put before limit and reserve are used up, and the spool
// is full.
func (q *Queue) Room() int {
	waiting := q.Waiting()
	room := max(0, q.limit+reserve-waiting)
	if q.spooler != nil {
		room = min(room, q.spoolRoom(waiting))
	}
	return room
}

// Waiting is the number of bytes that are not written yet.
func (q *Queue) Waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.size
}

// Written is the number of bytes that the output has got.
func (q *Queue) Written() uint64 { return q.written.Load() }

// Begun is how many files or connections the output has begun after the first.
func (q *Queue) Begun() uint64 {
	begun := q.reopened.Load()
	if b, ok := q.out.(beginner); ok {
		begun += b.Begun()
	}
	return begun
}

// Drain waits until all lines are written, or writing has failed, and returns that
// failure. After the first call, a full disk is a failure. After
// Abandon it waits only while the output takes something every 300 ms, and otherwise fails
// with a [*NotWrittenError].
func (q *Queue) Drain() error {
	select {
	case <-q.draining:
	default:
		close(q.draining)
	}
	defer time.AfterFunc(q.drainNotice, q.notifyBacklog).Stop()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.abandoned {
		defer time.AfterFunc(lateDrain, q.Abandon).Stop()
	}
	q.inDrain, q.sizeBefore = true, 0
	for q.size > 0 && q.err == nil && !q.late {
		q.changed.Wait()
	}
	q.inDrain = false
	if q.err == nil && q.size > 0 {
		q.err = &NotWrittenError{q.size}
	}
	return q.err
}

// notifyBacklog reports how much Drain still waits for.
func (q *Queue) notifyBacklog() {
	if size := q.Waiting(); size > 0 {
		q.notify(fmt.Sprintf("%d bytes wait for the reader of the output, which does not read: "+
			"a signal ends tcpshift without them", size))
	}
}

// Abandon makes Drain and Close wait no longer for a write that does not end.
func (q *Queue) Abandon() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.abandoned = true
	if q.inDrain && (q.sizeBefore == 0 || q.size < q.sizeBefore) { // the reader reads
		q.sizeBefore = q.size
		time.AfterFunc(lateDrain, q.Abandon)
	} else {
		q.late = q.inDrain
	}
	q.changed.Broadcast()
}

// Err is the error of a write, which the next Put returns, too.
func (q *Queue) Err() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.err
}

// Reopen makes the goroutine reopen the output between two lines, see [Output].
func (q *Queue) Reopen() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.reopen = true
	q.changed.Broadcast()
}

// ReaderGone is [Output.ReaderGone].
func (q *Queue) ReaderGone() bool { return q.out.ReaderGone() }

// Close waits for the write in progress and ends the goroutine. It discards the lines
// that still wait: call Drain first. It returns false if the queue is abandoned and a write or
// a Reopen is in progress: the goroutine still uses the output then.
func (q *Queue) Close() (ended bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.changed.Broadcast()
	for !q.ended && (!q.abandoned || !q.mayHang()) {
		q.changed.Wait()
	}
	return q.ended
}

// mayHang reports whether the goroutine may be in a system call that does not end. Its batch is
// written before finish is called: then size is 0.
func (q *Queue) mayHang() bool { return q.writing && q.size > 0 || q.reopening || q.attending }

func (q *Queue) run() {
	for {
		lines, more := q.next()
		if q.takeReopen() {
			q.reopenOutput()
		}
		if lines != nil {
			q.finish(lines, q.write(lines))
		} else if more && q.attender != nil {
			q.attendOutput()
		}
		if !more {
			break
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
	q.changed.Broadcast()
}

// next waits for a batch, or for Reopen or wake: lines is nil then. more is false after Close or an
// error.
func (q *Queue) next() (lines []byte, more bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.waiting) == 0 && !q.closed && !q.reopen && !q.attend {
		q.changed.Wait()
	}
	q.attend = false
	if q.closed || q.err != nil {
		return nil, false
	}
	if len(q.waiting) > 0 {
		lines = q.waiting[0]
		q.waiting = slices.Delete(q.waiting, 0, 1)
		q.writing = true
	}
	return lines, true
}

func (q *Queue) takeReopen() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	wanted := q.reopen && !q.closed
	q.reopen, q.reopening = false, wanted
	return wanted
}

func (q *Queue) attendOutput() {
	q.setAttending(true)
	q.attender.attend()
	q.setAttending(false)
}

func (q *Queue) setAttending(attending bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.attending = attending
}

func (q *Queue) reopenOutput() {
	if err := q.out.Reopen(); err != nil {
		q.notify("reopen the output: " + err.Error())
	} else {
		q.reopened.Add(1)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.reopening = false
}

// wrote accounts for bytes that the output has got.
func (q *Queue) wrote(n int) {
	q.written.Add(uint64(n))
	q.mu.Lock()
	defer q.mu.Unlock()
	q.size -= n
	if q.size <= q.limit/2 {
		q.full.Store(false)
	}
}

// finish accounts for a batch that write is done with, and keeps its buffer.
func (q *Queue) finish(lines []byte, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.writing = false
	if q.err == nil {
		q.err = err
	}
	if q.err != nil { // the next Put must return it
		q.full.Store(false)
	}
	if q.isReusable(lines) {
		q.spare = append(q.spare, lines[:0])
	}
	q.needed.add(time.Now(), 0)
	if most := q.maxSpares(); len(q.spare) > most {
		q.spare = slices.Delete(q.spare, most, len(q.spare)) // clears them
	}
	q.changed.Broadcast()
}

// recentMax is a maximum over the last one to two sparePeriods.
type recentMax struct {
	current, last int
	since         time.Time // of current
}

func (m *recentMax) add(now time.Time, n int) {
	switch passed := now.Sub(m.since); {
	case passed >= 2*sparePeriod:
		m.current, m.last, m.since = 0, 0, now
	case passed >= sparePeriod:
		m.current, m.last, m.since = 0, m.current, now
	}
	m.current = max(m.current, n)
}
