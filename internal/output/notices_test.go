package output

import "testing"

// While standard error takes nothing, at most maxNotices messages wait, the count of the dropped
// ones included.
func TestNotices_Bounded(t *testing.T) {
	n := &Notices{} // without the goroutine that writes
	n.changed.L = &n.mu
	for range maxNotices + 1 {
		n.Add("a message")
	}
	n.waiting = n.waiting[1:] // one is written
	for range 10 {
		n.Add("a message")
	}
	if len(n.waiting) > maxNotices {
		t.Errorf("%d messages wait, want at most %d", len(n.waiting), maxNotices)
	}
	if n.dropped != 11 {
		t.Errorf("%d messages are counted as dropped, want 11", n.dropped)
	}
}
