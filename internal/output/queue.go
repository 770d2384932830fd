package output

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// reserve is the number of bytes by which the records that must not be lost may
	// exceed a Queue's limit.
	reserve = 4 << 20
	// maxSpares bounds the number of empty buffers that are kept: 2 MiB of those for
	// a regular file. Two are in use while the reader keeps up.
	maxSpares = 8
	// A write that takes slowWrite or longer means that the disk is slow: a busy CPU
	// alone does not delay a write by that much. The next writes may take even longer,
	// so for slowPause only the goroutine writes to a regular file. The ring has room for
	// the events that happen during one slow write.
	slowWrite, slowPause = 100 * time.Millisecond, 10 * time.Second
	// retryInterval is the time between two attempts to write to a full disk.
	retryInterval = 200 * time.Millisecond
	// drainNotice is how long Drain waits before it notifies the operator.
	drainNotice = 5 * time.Second
)

// Queue writes to an Output in the background, so that neither a reader that stalls
// nor a full disk stops the goroutine that makes the lines. Its memory is bounded.
// Except for Full, Written and ReaderGone its methods must not be called concurrently.
type Queue struct {
	out         Output
	limit       int // bytes
	notify      func(message string)
	drainNotice time.Duration

	full     atomic.Bool
	written  atomic.Uint64
	draining chan struct{} // closed by the first Drain

	mu        sync.Mutex
	changed   sync.Cond
	waiting   [][]byte  // the oldest batch first
	spare     [][]byte  // empty buffers
	size      int       // bytes that wait or are being written
	slowUntil time.Time // see slowWrite
	err       error     // of a write; no other write follows
	closed    bool
	writer    sync.WaitGroup
}

// NewQueue starts a goroutine that writes to out, which the caller must not use until
// Close has returned. limit is in bytes. notify gets a message for the operator when the
// disk is full, and when Drain waits for a reader. notify may be called from any
// goroutine.
func NewQueue(out Output, limit int, notify func(message string)) *Queue {
	q := &Queue{out: out, limit: limit, notify: notify, drainNotice: drainNotice, draining: make(chan struct{})}
	q.changed.L = &q.mu
	q.writer.Go(q.run)
	return q
}

// BatchSize is the number of bytes that one Put should have under load.
func (q *Queue) BatchSize() int { return q.out.batchSize() }

// Put takes whole lines together with their buffer, and returns an empty buffer in
// exchange. It waits only while limit and reserve are used up. It fails with the
// error of this or an earlier write, see [Output].
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
	// Small batches are merged, or each would occupy a whole buffer.
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

// writeNow writes without the goroutine, because the batch is in the cache of this CPU
// and the goroutine may run on another one. It returns the lines that the destination
// did not take, and whether the batch is finished: written, or failed.
func (q *Queue) writeNow(lines []byte) (left []byte, done bool) {
	began := time.Now()
	n, err := q.out.writeNow(lines, !began.After(q.slowUntil))
	q.markIfSlow(time.Since(began))
	q.written.Add(uint64(n))
	if err != nil && !q.out.retryable(err) {
		q.err = err
		return lines, true
	}
	if n == 0 {
		return lines, false
	}
	return lines[:copy(lines, lines[n:])], n == len(lines)
}

// markIfSlow marks the output as slow for slowPause if a write took slowWrite or longer.
func (q *Queue) markIfSlow(took time.Duration) {
	if took >= slowWrite {
		q.slowUntil = time.Now().Add(slowPause)
	}
}

// Full reports whether only records that must not be lost may be put: from the limit
// on, until at most half of the limit is queued.
func (q *Queue) Full() bool { return q.full.Load() }

// Written is the number of bytes that the output has got.
func (q *Queue) Written() uint64 { return q.written.Load() }

// Drain waits until all lines are written, or writing has failed, and returns that
// failure. After the first call, a full disk is a failure.
func (q *Queue) Drain() error {
	select {
	case <-q.draining:
	default:
		close(q.draining)
	}
	defer time.AfterFunc(q.drainNotice, q.notifyBacklog).Stop()
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.size > 0 && q.err == nil {
		q.changed.Wait()
	}
	return q.err
}

// notifyBacklog reports how much Drain still waits for.
func (q *Queue) notifyBacklog() {
	q.mu.Lock()
	size := q.size
	q.mu.Unlock()
	if size > 0 {
		q.notify(fmt.Sprintf("%d bytes wait for the reader of the output, which does not read: "+
			"a second signal ends tcpshift without writing them", size))
	}
}

// ReaderGone is [Output.ReaderGone].
func (q *Queue) ReaderGone() bool { return q.out.ReaderGone() }

// Close waits for the write in progress and ends the goroutine. It discards the lines
// that still wait: call Drain first.
func (q *Queue) Close() {
	q.mu.Lock()
	q.closed = true
	q.changed.Broadcast()
	q.mu.Unlock()
	q.writer.Wait()
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

// next waits for a batch. more is false after Close or an error.
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

// write retries on a full disk until Drain is called.
func (q *Queue) write(lines []byte) error {
	for notified := false; ; notified = true {
		n, err := q.out.Write(lines)
		q.written.Add(uint64(n))
		if err == nil || !q.out.retryable(err) {
			return err
		}
		select {
		case <-q.draining:
			return err
		default:
		}
		if !notified {
			q.notify(err.Error() + ": writing continues as soon as there is space")
		}
		lines = lines[n:]
		select {
		case <-q.draining:
		case <-time.After(retryInterval):
		}
	}
}

// finish accounts for a batch that write is done with, and keeps its buffer.
func (q *Queue) finish(lines []byte, duration time.Duration, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.markIfSlow(duration)
	q.size -= len(lines)
	q.err = err
	if q.size <= q.limit/2 || err != nil { // after an error the next Put must return it
		q.full.Store(false)
	}
	if len(q.spare) < maxSpares {
		q.spare = append(q.spare, lines[:0])
	}
	q.changed.Broadcast()
}
