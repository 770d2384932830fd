// Package summary sums up the connections that end, by owner, role and peer, in windows of the wall
// clock and in bounded memory. It must not read clocks or the host, nor know how its rows are written.
package summary

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

const (
	// lateness is how long after the end of a window its connections are awaited: longer than an event
	// is under way, and than it waits for a reset.
	lateness = 250 * time.Millisecond
	// maxWindows bounds the windows that are open at one time. More than two are open only after the
	// wall clock was set.
	maxWindows = 3
)

// Summary sums up connections. It is for one goroutine.
type Summary struct {
	length  time.Duration
	windows []*window // one at least, by time
}

// window has the connections that end from start to end.
type window struct {
	start, end time.Time
	*Table
}

// New returns a summary whose windows have this length, and whose first window begins now. Each
// window ends when the wall clock, in UTC, is a multiple of length.
func New(length time.Duration, now time.Time) *Summary {
	s := &Summary{length: length}
	s.open(now.Round(0)) // without its monotonic reading: windows go by the wall clock
	return s
}

func (s *Summary) open(start time.Time) *window {
	w := &window{start: start, end: start.Truncate(s.length).Add(s.length), Table: NewTable()}
	s.windows = append(s.windows, w)
	return w
}

// Add adds a connection to the window in which it has ended. If that is over, it adds it to the
// oldest one that is open.
func (s *Summary) Add(last *tcp.Transition, c *tcp.Connection) {
	s.windowOf(last.Time).Add(last, c)
}

func (s *Summary) windowOf(at time.Time) *window {
	for _, w := range s.windows {
		if at.Before(w.end) {
			return w
		}
	}
	newest := s.windows[len(s.windows)-1]
	if len(s.windows) == maxWindows {
		return newest
	}
	start := at.Truncate(s.length)
	if start.Before(newest.end) {
		start = newest.end
	}
	return s.open(start)
}

// Due is when Rows may have rows of the oldest window.
func (s *Summary) Due() time.Time { return s.windows[0].end.Add(lateness) }

// Rows returns the rows of the windows that are over. A window without a connection has none.
func (s *Summary) Rows(now time.Time) (rows []Row) {
	now = now.Round(0)
	for len(s.windows) > 0 && s.isOver(s.windows[0], now) {
		w := s.windows[0]
		s.windows = s.windows[1:]
		rows = append(rows, w.close(w.end)...)
		if len(s.windows) == 0 {
			s.open(s.nextStart(w, now))
			break
		}
	}
	return rows
}

// isOver is also true if the wall clock was set back to before the window.
func (s *Summary) isOver(w *window, now time.Time) bool {
	return !now.Before(w.end.Add(lateness)) || now.Before(w.start.Add(-s.length))
}

// nextStart is the start of the window after w. It leaves out windows that are over.
func (s *Summary) nextStart(w *window, now time.Time) time.Time {
	switch current := now.Truncate(s.length); {
	case now.Before(w.end):
		return now
	case current.After(w.end):
		return current
	}
	return w.end
}

// Finish returns the rows of all windows that are open. The last one ends now, and a new one begins.
func (s *Summary) Finish(now time.Time) (rows []Row) {
	now = now.Round(0)
	for _, w := range s.windows {
		end := w.end
		if now.After(w.start) && now.Before(end) {
			end = now
		}
		rows = append(rows, w.close(end)...)
	}
	s.windows = nil
	s.open(now)
	return rows
}

// close returns the rows of the window.
func (w *window) close(end time.Time) []Row {
	rows := w.Rows()
	for i := range rows {
		rows[i].Start, rows[i].End = w.start, end
	}
	return rows
}
