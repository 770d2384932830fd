package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
)

// liveOutputs are the outputs of a trace that runs, which a reload may replace. Its methods may be called from any
// goroutine.
type liveOutputs struct {
	mu      sync.Mutex
	all     openOutputs
	retired map[*queuedOutput]chan struct{} // no longer among all, and not closed yet; the channel is closed then
	closing sync.WaitGroup                  // of retired
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
		if l.retired == nil {
			l.retired = make(map[*queuedOutput]chan struct{})
		}
		closed := make(chan struct{})
		l.retired[each] = closed
		l.closing.Go(func() {
			err := errors.Join(each.queue.Drain(), openOutputs{each}.close())
			if err != nil && !readerGone(err) {
				notify(each.name + ": " + err.Error())
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			delete(l.retired, each)
			close(closed)
		})
	}
	l.all = all
}

// awaitClosed waits until no output that is no longer among all writes to the target of v, or fails at the end of ctx:
// two outputs would write into each other's lines.
func (l *liveOutputs) awaitClosed(ctx context.Context, v *outputValue) error {
	l.mu.Lock()
	var waits []chan struct{}
	for each, closed := range l.retired {
		if each.targetID() == v.targetID() && v.targetID() != "" {
			waits = append(waits, closed)
		}
	}
	l.mu.Unlock()
	for _, closed := range waits {
		select {
		case <-closed:
		case <-ctx.Done():
			return fmt.Errorf("%s: %s: its reader has not yet got what it was sent before an earlier reload: reload again when it has", keyOutputs, v.text)
		}
	}
	return nil
}

func (all openOutputs) has(one *queuedOutput) bool {
	for _, each := range all {
		if each.queue == one.queue {
			return true
		}
	}
	return false
}

// everything are the outputs that may have something to write.
func (l *liveOutputs) everything() (all openOutputs) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.AppendSeq(slices.Clone(l.all), maps.Keys(l.retired))
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
