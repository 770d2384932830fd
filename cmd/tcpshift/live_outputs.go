package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// maxRetired is how many outputs that a reload has removed may wait for their readers. If there are more, the one that
// was removed first is discarded with what it has.
const maxRetired = 8

// liveOutputs are the outputs of a trace that runs, which a reload may replace. Its methods may be called from any
// goroutine.
type liveOutputs struct {
	mu      sync.Mutex
	all     openOutputs
	retired []*retiredOutput // in the order of their removal
	lost    []error          // of retired outputs that have ended without all that they had
	closing sync.WaitGroup   // of retired
}

// retiredOutput is an output that a reload has removed, and that is not closed yet.
type retiredOutput struct {
	*queuedOutput
	closed chan struct{}
}

// get returns the outputs in use.
func (l *liveOutputs) get() openOutputs {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all
}

// replace sets the outputs. An output in use that is not in all is retired: it is closed in the background when it has
// written what it has, or when more than maxRetired wait.
func (l *liveOutputs) replace(all openOutputs, notify func(message string)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, each := range l.all {
		if !all.has(each) {
			r := &retiredOutput{each, make(chan struct{})}
			l.retired = append(l.retired, r)
			l.closing.Go(func() { l.retire(r, notify) })
		}
	}
	l.all = all
	for _, oldest := range l.retired[:max(0, len(l.retired)-maxRetired)] {
		oldest.queue.Discard()
	}
}

// retire closes r once it has written what it has, or is discarded.
func (l *liveOutputs) retire(r *retiredOutput, notify func(message string)) {
	err := errors.Join(r.queue.Drain(), openOutputs{r.queuedOutput}.close())
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil && !readerGone(err) {
		err = fmt.Errorf("%s: %w", r.name, err)
		notify(err.Error())
		l.lost = append(l.lost, err)
	}
	l.retired = slices.DeleteFunc(l.retired, func(other *retiredOutput) bool { return other == r })
	close(r.closed)
}

// checkRetired returns an error if 2 * maxRetired outputs are retired and not closed: those that are discarded do not end
// either, because their disks hang.
func (l *liveOutputs) checkRetired() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.retired) < 2*maxRetired {
		return nil
	}
	return fmt.Errorf("%s: %d outputs that earlier reloads have removed do not end, the first is %s: look whether its disk hangs",
		keyOutputs, len(l.retired), l.retired[0].name)
}

// awaitClosed waits until no retired output has the target of v: two outputs to one target would write into each other's
// lines. It fails at the end of ctx.
func (l *liveOutputs) awaitClosed(ctx context.Context, v *outputValue) error {
	l.mu.Lock()
	var waits []chan struct{}
	for _, each := range l.retired {
		if each.targetID() == v.targetID() && v.targetID() != "" {
			waits = append(waits, each.closed)
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

// everything returns the outputs in use and the retired ones: all that may have something to write.
func (l *liveOutputs) everything() (all openOutputs) {
	l.mu.Lock()
	defer l.mu.Unlock()
	all = slices.Clone(l.all)
	for _, each := range l.retired {
		all = append(all, each.queuedOutput)
	}
	return all
}

// close closes all outputs, and waits for the retired ones. No reload may follow. The error includes the failures of
// retired outputs.
func (l *liveOutputs) close() error {
	l.closing.Wait()
	return errors.Join(append(l.lost, l.get().close())...)
}

// running returns what signals do to the outputs.
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
