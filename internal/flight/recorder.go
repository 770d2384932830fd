package flight

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

// minInterval is the least time between two files for one reason.
const minInterval = time.Minute

// Recorder has a ring, and writes its events to files. Its methods are for one goroutine, except where their comments
// permit others.
type Recorder struct {
	Ring   *Ring
	path   string
	notify func(message string)
	wake   atomic.Pointer[func()]

	asked     atomic.Bool
	files     atomic.Uint64
	lost      atomic.Uint64
	last      map[string]time.Time // by reason, the last file that was admitted
	jobs      chan job
	done      chan struct{} // closed when all jobs are done
	abandoned chan struct{}
}

type job struct {
	at       time.Time
	reason   string
	snapshot *Snapshot
	write    func(s *Snapshot, w *Writer) error
}

// New returns a recorder whose ring takes size bytes, and whose files are in root, a directory that only its owner may
// read. Its goroutine closes root after Close. notify gets messages for the operator, from any goroutine, and must not
// wait.
func New(size int, root *os.Root, notify func(message string)) *Recorder {
	r := &Recorder{
		Ring: NewRing(size), path: root.Name(), notify: notify, last: make(map[string]time.Time),
		jobs: make(chan job, 1), done: make(chan struct{}), abandoned: make(chan struct{}),
	}
	go r.run(&directory{root})
	return r
}

// NotifyAsked sets a function that Ask calls, in the goroutine of its caller.
func (r *Recorder) NotifyAsked(wake func()) { r.wake.Store(&wake) }

// Ask asks the goroutine of the ring for a file: Asked reports it there. Any goroutine may call it.
func (r *Recorder) Ask() {
	r.asked.Store(true)
	if wake := r.wake.Load(); wake != nil {
		(*wake)()
	}
}

// Asked reports whether Ask was called since Asked last reported it.
func (r *Recorder) Asked() bool { return r.asked.Load() && r.asked.Swap(false) }

// Admit reports whether a file for a reason may be written, and takes it as written: none was admitted in the last
// minute, or the clock was set back.
func (r *Recorder) Admit(reason string, at time.Time) bool {
	before, known := r.last[reason]
	if known && at.Sub(before) < minInterval && !at.Before(before) {
		return false
	}
	r.last[reason] = at
	return true
}

// Dump makes a file in the background: it calls write with the events that the ring has now. The disk may be slow: if a
// file is being written and a second one waits, the events of a third one count as lost. reason is a word of a-z, 0-9 and _; it is in
// the name of the file.
func (r *Recorder) Dump(at time.Time, reason string, write func(s *Snapshot, w *Writer) error) {
	s := r.Ring.Snapshot()
	select {
	case r.jobs <- job{at, reason, s, write}:
	default:
		r.lost.Add(s.Count)
		s.Release()
		r.notify(fmt.Sprintf("the flight recorder's disk is slow: there is no file for %s", reason))
	}
}

// run writes the files until Close is called and all files are written.
func (r *Recorder) run(d *directory) {
	defer close(r.done)
	if err := d.removeParts(); err != nil {
		r.notify(fmt.Sprintf("the flight recorder cannot remove the unfinished files in %s: %v", r.path, err))
	}
	for j := range r.jobs {
		name, err := d.create(j.at, j.reason, func(w *Writer) error { return j.write(j.snapshot, w) })
		if err != nil {
			r.lost.Add(j.snapshot.Count)
			r.notify(fmt.Sprintf("the flight recorder cannot write %s: %v", filepath.Join(r.path, name), err))
		} else {
			r.files.Add(1)
			r.notify(fmt.Sprintf("the flight recorder has written %s: %d events", filepath.Join(r.path, name), j.snapshot.Count))
		}
		j.snapshot.Release()
	}
	_ = d.root.Close() // nothing was written through it
}

// Files returns how many files were written. Any goroutine may call it.
func (r *Recorder) Files() uint64 { return r.files.Load() }

// Lost returns how many events should have been written to a file and were not, because the disk was full or too slow.
// An event of two files that fail counts twice. Any goroutine may call it.
func (r *Recorder) Lost() uint64 { return r.lost.Load() }

// Abandon makes Close return although a file is not written yet. It may be called once, by any goroutine.
func (r *Recorder) Abandon() { close(r.abandoned) }

// Close waits until all files are written. It fails if Abandon ends that wait.
func (r *Recorder) Close() error {
	close(r.jobs)
	select {
	case <-r.done:
		return nil
	case <-r.abandoned:
		return errors.New("a file of the flight recorder was not written: the disk did not take it in time")
	}
}
