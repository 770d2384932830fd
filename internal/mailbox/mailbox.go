// Package mailbox passes what goroutines find in the background to one that looks for it from time to
// time. It must not wait, call back, or know what it passes.
package mailbox

import (
	"sync"
	"sync/atomic"
)

// Box keeps values until they are taken. The zero value is empty. Any goroutine may use it.
type Box[T any] struct {
	full   atomic.Bool // there are values
	mu     sync.Mutex
	values []T // with mu
}

// Put adds a value. The number of values is not bounded: who puts them in must bound it.
func (b *Box[T]) Put(v T) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.values = append(b.values, v)
	b.full.Store(true)
}

// Take returns the values since the last call, the oldest first; nil: there are none. Without values
// it costs one atomic load, so that a loop may call it often.
func (b *Box[T]) Take() []T {
	if !b.full.Load() {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	values := b.values
	b.values = nil
	b.full.Store(false)
	return values
}
