package monitor

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/boottime"
	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/limits"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

const (
	// maxHalfClosed bounds the sockets in FIN_WAIT2 of one reading, to 64 MB. It is the largest
	// tcp_max_tw_buckets that the kernel sets by itself. maxCloseWait bounds those in CLOSE_WAIT, to
	// 24 MB. maxUnaccepted bounds those that wait for accept(), to 3 MB. A namespace that a user
	// makes may have as many sockets as the host has memory for.
	maxHalfClosed = 1 << 18
	maxCloseWait  = 1 << 20
	maxUnaccepted = 1 << 16
)

// tables is what a request asked for in the kernel's tables of sockets. What is nil or false
// was not asked for, or could not be read now: the engine requests it again.
type tables struct {
	hasHalfClosed bool
	halfClosed    []tcp.Socket
	halfClosedAt  time.Duration // when the reading of halfClosed began
	hasCloseWait  bool
	closeWait     []tcp.CloseWaitSocket
	readAt        time.Duration // when the reading of closeWait began
	open          *detect.OpenSockets
	suspects      *detect.SuspectCounts
	entered       bool   // the namespace was entered and its limits were read
	leftOut       uint64 // sockets of a table that has too many: it is not passed on
	listeners     *detect.ListenTable
}

// readTables reads the tables of the namespace that the calling thread is in, whose limits
// are l, within the budget. Where it allows only some, the kinds of tables take turns:
// else suspects, which are requested every second, would leave nothing for the others.
func (w *worker) readTables(request detect.Request, l *tcp.Limits, into *tables) error {
	list := []struct {
		requested, urgent bool
		read              func() error
	}{
		{request.Suspects != nil, request.Suspects != nil && request.Suspects.Urgent, func() error { return readSuspects(request, l, into) }},
		{request.OpenRequestedAt > 0, true, func() error { return readOpen(request, l, into) }},
		{request.HalfClosed, true, func() error { return w.readHalfClosed(into) }},
		{request.CloseWait, true, func() error { return readCloseWait(into) }},
		{request.Listeners != nil, request.Listeners != nil && request.Listeners.Urgent, func() (err error) {
			into.listeners, _, err = w.readListeners(request.Listeners.Unaccepted)
			return err
		}},
	}
	first := w.nextTable
	for i := range list {
		kind := (first + i) % len(list)
		table := &list[kind]
		if !table.requested || !w.budget.allows(boottime.Now(), table.urgent) {
			continue
		}
		w.nextTable = (kind + 1) % len(list)
		if err := w.budget.charge(table.read); err != nil {
			return err
		}
	}
	return nil
}

func readSuspects(request detect.Request, l *tcp.Limits, into *tables) error {
	counts := request.Suspects.NewCounts(boottime.Now(), l)
	err := limits.EachWithPeer(request.Suspects.Peers(), func(s *tcp.Socket) { counts.Add(request.Netns, s) })
	if err == nil {
		counts.Done(boottime.Now())
		into.suspects = counts
	}
	return err
}

func readOpen(request detect.Request, l *tcp.Limits, into *tables) error {
	open := new(detect.OpenSockets)
	err := limits.EachOpenOrFinWait2(func(s *tcp.Socket) { open.Add(request.Netns, s, l) })
	if err == nil {
		into.open = open
	}
	return err
}

func (w *worker) readHalfClosed(into *tables) error {
	into.halfClosedAt = boottime.Now()
	err := limits.EachFinWait2(func(s *tcp.Socket) {
		if w.filter.MatchesSocket(s) {
			if len(into.halfClosed) < maxHalfClosed {
				into.halfClosed = append(into.halfClosed, *s)
			} else {
				into.leftOut++
			}
		}
	})
	into.hasHalfClosed = err == nil && into.leftOut == 0
	return err
}

func readCloseWait(into *tables) error {
	into.readAt = boottime.Now()
	err := limits.EachCloseWait(func(s tcp.CloseWaitSocket) {
		if len(into.closeWait) < maxCloseWait {
			into.closeWait = append(into.closeWait, s)
		} else {
			into.leftOut++
		}
	})
	into.hasCloseWait = err == nil && into.leftOut == 0
	return err
}

// sendUpdate sends what was read for a request. l is nil if the namespace could not be read.
func (w *worker) sendUpdate(request detect.Request, l *tcp.Limits, t tables) {
	w.send(func(e Engine, now time.Duration) {
		if request.Listeners != nil && (t.listeners != nil || !t.entered) {
			e.UpdateListeners(now, request.Netns, t.listeners)
		}
		if request.OnlyListeners {
			return
		}
		e.AddLeftOut(t.leftOut)
		e.Update(now, request.Netns, l)
		if l == nil {
			return
		}
		if t.suspects != nil {
			e.UpdateSuspects(now, t.suspects)
		}
		if t.hasHalfClosed {
			e.UpdateHalfClosed(now, t.halfClosedAt, request.Netns, t.halfClosed)
		}
		if t.hasCloseWait {
			e.UpdateCloseWait(now, t.readAt, request.Netns, t.closeWait)
		}
		if t.open != nil {
			e.UpdateOpen(now, request.OpenRequestedAt, request.Netns, t.open)
		}
	})
}
