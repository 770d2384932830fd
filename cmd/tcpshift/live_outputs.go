package main

import (
	"errors"
	"sync"
)

// liveOutputs are the outputs of a trace that runs, which a reload may replace. Its methods may be called from any
// goroutine.
type liveOutputs struct {
	mu      sync.Mutex
	all     openOutputs
	retired openOutputs    // no longer among all, and not closed yet
	closing sync.WaitGroup // of retired
}

func (l *liveOutputs) get() openOutputs {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all
}

// replace sets the outputs. Those that are missing are closed in the background, once they have written what they
// have.
func (l *liveOutputs) replace(all openOutputs, notify func(message string)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, each := range l.all {
		if all.has(each) {
			continue
		}
		l.retired = append(l.retired, each)
		l.closing.Go(func() {
			err := errors.Join(each.queue.Drain(), openOutputs{each}.close())
			if err != nil && !readerGone(err) {
				notify(each.name + ": " + err.Error())
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			l.retired = l.retired.without(each)
		})
	}
	l.all = all
}

func (all openOutputs) has(one *queuedOutput) bool {
	for _, each := range all {
		if each.queue == one.queue {
			return true
		}
	}
	return false
}

func (all openOutputs) without(one *queuedOutput) (rest openOutputs) {
	for _, each := range all {
		if each.queue != one.queue {
			rest = append(rest, each)
		}
	}
	return rest
}

// everything are the outputs that may have something to write.
func (l *liveOutputs) everything() (all openOutputs) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append(append(all, l.all...), l.retired...)
}

// close closes all outputs. There is no reload any more.
func (l *liveOutputs) close() error {
	l.closing.Wait()
	return l.get().close()
}

// running is what a signal does to the outputs.
func (l *liveOutputs) running() *running {
	now := &running{
		abandon:   func() { l.everything().abandon() },
		unwritten: func() string { return l.everything().unwritten() },
	}
	if l.get().reopens() {
		now.reopen = func() { l.get().reopen() }
	}
	return now
}
