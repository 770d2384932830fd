package output

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// maxNotices bounds the messages that wait. Few come: a stall, a full disk, a failure.
	maxNotices = 64
	// maxNotice bounds a message, in bytes: a receiver may have written it.
	maxNotice = 4 << 10
)

// Notices writes messages for the operator to a descriptor, one a line behind "tcpshift: ". The descriptor may be
// the same full pipe as that of the records, so a goroutine writes them. It may be used by any
// goroutine.
type Notices struct {
	out descriptor

	mu      sync.Mutex // never locked during a system call
	changed sync.Cond
	waiting []string
	writing bool
	dropped int
}

// NewNotices starts a goroutine that writes to the descriptor fd.
func NewNotices(fd int) *Notices {
	n := &Notices{out: descriptor{fd: fd, pause: firstPause}}
	n.changed.L = &n.mu
	go n.run()
	return n
}

// Add takes a message and does not wait. It counts messages that come while too many wait, and
// reports their number before the next message for which there is room.
func (n *Notices) Add(message string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	room := maxNotices - len(n.waiting)
	if n.dropped > 0 {
		room-- // for their number
	}
	if room <= 0 {
		n.dropped++
		return
	}
	if n.dropped > 0 {
		n.waiting = append(n.waiting, fmt.Sprintf("%d messages could not be written here", n.dropped))
		n.dropped = 0
	}
	n.waiting = append(n.waiting, oneLine(message))
	n.changed.Broadcast()
}

// oneLine makes a message one line of bounded length, with escapes for what is not printable: errors may have
// what a receiver of records, or the creator of a file, has written.
func oneLine(message string) string {
	if len(message) > maxNotice {
		message = message[:maxNotice] + "..."
	}
	var line strings.Builder
	for _, r := range strings.ReplaceAll(message, "\n", "; ") {
		if strconv.IsPrint(r) {
			line.WriteRune(r)
		} else {
			line.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return line.String()
}

// Flush waits until all messages are written, but no longer than limit.
func (n *Notices) Flush(limit time.Duration) {
	var late bool
	timer := time.AfterFunc(limit, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		late = true
		n.changed.Broadcast()
	})
	defer timer.Stop()
	n.mu.Lock()
	defer n.mu.Unlock()
	for (len(n.waiting) > 0 || n.writing) && !late {
		n.changed.Wait()
	}
}

func (n *Notices) run() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for {
		for len(n.waiting) == 0 {
			n.changed.Wait()
		}
		message := n.waiting[0]
		n.waiting, n.writing = n.waiting[1:], true
		n.mu.Unlock()
		_, _ = n.out.Write([]byte("tcpshift: " + message + "\n")) // a failure cannot be reported anywhere
		n.mu.Lock()
		n.writing = false
		n.changed.Broadcast()
	}
}

// BlockingWriter writes to a descriptor. Write blocks until the descriptor has taken everything, even if
// another process has set O_NONBLOCK on it. Its errors name the descriptor, except [ErrReaderGone].
type BlockingWriter struct{ out descriptor }

// NewBlockingWriter makes a writer for the descriptor fd, which stays the caller's to close. name stands
// for the descriptor in errors.
func NewBlockingWriter(fd int, name string) *BlockingWriter {
	return &BlockingWriter{descriptor{fd: fd, name: name, pause: firstPause}}
}

// Write waits until all of b is written. It returns the number of bytes written, which is less than
// len(b) only with an error.
func (w *BlockingWriter) Write(b []byte) (int, error) {
	return w.out.Write(b)
}
