package output

import (
	"slices"
	"strings"
	"testing"
)

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

// A receiver's message, which an error may have, neither rules the terminal nor fills it.
func TestNotices_HostileMessage(t *testing.T) {
	n := &Notices{} // without the goroutine that writes
	n.changed.L = &n.mu
	n.Add("it fails: \x1b[2J\r\u202eab\u200b\xff\ntcpshift: all is well, b\u00e4r \\x1b \"a\"")
	n.Add(strings.Repeat("x", 1<<20))
	want := []string{`it fails: \x1b[2J\r\u202eab\u200b` + "\ufffd" + `; tcpshift: all is well, bär \x1b "a"`, strings.Repeat("x", maxNotice) + "..."}
	if !slices.Equal(n.waiting, want) {
		t.Errorf("the messages are %.200q, want %.200q", n.waiting, want)
	}
}
