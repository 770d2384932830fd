package output

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// retryInterval is the time between two attempts to write to a full disk.
const retryInterval = 200 * time.Millisecond

// write writes a batch. It waits for a reader that stalls, and retries on a full disk until
// Drain is called.
func (q *Queue) write(lines []byte) error {
	notified, atLineStart := false, true
	for {
		n, err := q.out.try(lines)
		q.wrote(n)
		if n > 0 {
			atLineStart = lines[n-1] == '\n'
		}
		lines = lines[n:]
		switch {
		case errors.Is(err, unix.EAGAIN):
			if q.discarded.Load() {
				return &NotWrittenError{q.Waiting()}
			}
			q.out.awaitRoom()
			continue
		case err == nil || !q.out.retryable(err):
			return err
		}
		select {
		case <-q.draining:
			return err
		default:
		}
		if !notified {
			notified = true
			q.notify(err.Error() + ": writing continues as soon as there is space")
		}
		select {
		case <-q.draining:
		case <-time.After(retryInterval):
		}
		if atLineStart && q.takeReopen() {
			q.reopenOutput()
		}
	}
}

// Discard makes Drain fail at once with a [*NotWrittenError] if something is not written, and a write end that waits
// for its reader. Close then waits a second for that at most, and longer only for a disk that hangs.
func (q *Queue) Discard() {
	q.discarded.Store(true)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.late = true
	q.changed.Broadcast()
}
