package mailbox

import (
	"slices"
	"sync"
	"testing"
)

// Each value comes once, in the order in which its goroutine has put it, however the goroutines meet.
func TestBox_EachValueOnce(t *testing.T) {
	const writers, each = 4, 10_000
	var b Box[[2]int]
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				b.Put([2]int{w, i})
			}
		})
	}
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	var next [writers]int
	take := func() {
		for _, v := range b.Take() {
			if v[1] != next[v[0]] {
				t.Fatalf("writer %d: %d comes, want %d", v[0], v[1], next[v[0]])
			}
			next[v[0]]++
		}
	}
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		take()
	}
	if want := [writers]int{each, each, each, each}; next != want {
		t.Errorf("%v values of the writers came, want %v", next, want)
	}
}

// An empty box gives nothing, before the first value and after the values are taken.
func TestBox_Empty(t *testing.T) {
	var b Box[string]
	if got := b.Take(); got != nil {
		t.Errorf("an empty box gives %q", got)
	}
	b.Put("a")
	b.Put("b")
	if got := b.Take(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("got %q, want a and b", got)
	}
	if got := b.Take(); got != nil {
		t.Errorf("taken values come again: %q", got)
	}
}

func BenchmarkBox_TakeNothing(b *testing.B) {
	var box Box[int]
	for b.Loop() {
		box.Take()
	}
}
