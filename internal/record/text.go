package record

import (
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Text encodes transitions as aligned columns for a person and everything else as
// remarks that begin with '#'. No byte of a record reaches the terminal unless it
// is printable.
type Text struct {
	NoTransitions bool // none is going to come: no columns for them
}

// Where each column begins; the last two are of any length.
const (
	columnOld   = 16
	columnNew   = columnOld + 12
	columnRole  = columnNew + 12
	columnNetns = columnRole + 9
	columnPID   = columnNetns + 11
	columnComm  = columnPID + 8
	columnLocal = columnComm + 16
	columnPeer  = columnLocal + 22
	columnError = columnPeer + 22
)

var textColumns = []struct {
	column int
	title  string
}{
	{0, "TIME (UTC)"}, {columnOld, "OLD"}, {columnNew, "NEW"}, {columnRole, "ROLE"}, {columnNetns, "NETNS"},
	{columnPID, "PID"}, {columnComm, "COMM"}, {columnLocal, "LOCAL"}, {columnPeer, "PEER"}, {columnError, "ERROR"},
}

// SetSeq implements [Encoder]: the text format has no sequence numbers.
func (Text) SetSeq(uint64) {}

// WithSeq implements [Encoder].
func (Text) WithSeq(dst, line []byte, _ uint64) []byte { return append(dst, line...) }

// row appends the columns of one line.
type row struct {
	dst   []byte
	begin int
}

// to goes on to a column, with at least one space after the one before.
func (r *row) to(column int) {
	if len(r.dst) > r.begin && column > 0 {
		r.dst = append(r.dst, ' ')
	}
	for width := utf8.RuneCount(r.dst[r.begin:]); width < column; width++ {
		r.dst = append(r.dst, ' ')
	}
}

func (r *row) text(column int, s string) {
	r.to(column)
	r.dst = append(r.dst, s...)
}

func (r *row) uint(column int, v uint64) {
	r.to(column)
	r.dst = strconv.AppendUint(r.dst, v, 10)
}

func (r *row) endpoint(column int, e tcp.Endpoint) {
	r.to(column)
	switch {
	case !e.Addr.IsValid():
		r.dst = append(r.dst, '-')
	case e.Addr.Is6():
		r.dst = append(r.dst, '[')
		r.dst = append(e.Addr.AppendTo(r.dst), ']')
	default:
		r.dst = e.Addr.AppendTo(r.dst)
	}
	if e.Port != 0 {
		r.dst = append(r.dst, ':')
		r.dst = strconv.AppendUint(r.dst, uint64(e.Port), 10)
	}
}

func (r *row) end() []byte {
	for len(r.dst) > r.begin && r.dst[len(r.dst)-1] == ' ' {
		r.dst = r.dst[:len(r.dst)-1]
	}
	return append(r.dst, '\n')
}

// Start implements [Encoder].
func (t Text) Start(dst []byte, s *Start) []byte {
	dst = append(dst, "# tcpshift "...)
	dst = appendPrintable(dst, []byte(s.Version))
	for _, part := range [...]struct{ before, known string }{{" on ", s.Host}, {", Linux ", s.Kernel}, {" ", s.Arch}} {
		if part.known != "" {
			dst = appendPrintable(append(dst, part.before...), []byte(part.known))
		}
	}
	dst = s.Time.UTC().AppendFormat(dst, ", 2006-01-02 15:04:05 UTC\n")
	for _, f := range s.Features {
		if f.Off != "" {
			dst = append(dst, "# without "...)
			dst = append(dst, f.Name...)
			dst = append(dst, ": "...)
			dst = append(appendPrintable(dst, []byte(f.Off)), '\n')
		}
	}
	if t.NoTransitions {
		return dst
	}
	r := row{dst, len(dst)}
	for _, c := range textColumns {
		r.text(c.column, c.title)
	}
	return r.end()
}

// Transition implements [Encoder]. It does not allocate when dst has room.
func (Text) Transition(dst []byte, t *tcp.Transition) []byte {
	r := row{dst, len(dst)}
	r.dst = appendClock(r.dst, t.Time)
	r.text(columnOld, t.Old.String())
	r.text(columnNew, t.New.String())
	r.text(columnRole, orDash(t.Role.String()))
	r.uint(columnNetns, uint64(t.Netns))
	r.owner(columnPID, columnComm, &t.Owner)
	r.endpoint(columnLocal, t.Local)
	r.endpoint(columnPeer, t.Peer)
	if t.Error != 0 {
		r.text(columnError, t.Error.String())
	}
	return r.end()
}

// Where the columns of a snapshot begin.
const (
	socketRole  = 13
	socketNetns = socketRole + 9
	socketPID   = socketNetns + 11
	socketComm  = socketPID + 8
	socketLocal = socketComm + 16
	socketPeer  = socketLocal + 22
	socketLeft  = socketPeer + 22
)

// Header is a snapshot's first line.
func (Text) Header(dst []byte) []byte {
	r := row{dst, len(dst)}
	r.text(0, "STATE")
	r.text(socketRole, "ROLE")
	r.text(socketNetns, "NETNS")
	r.text(socketPID, "PID")
	r.text(socketComm, "COMM")
	r.text(socketLocal, "LOCAL")
	r.text(socketPeer, "PEER")
	r.text(socketLeft, "EXPIRES")
	return r.end()
}

// Socket appends one line of a snapshot.
func (Text) Socket(dst []byte, s *tcp.Socket) []byte {
	r := row{dst, len(dst)}
	r.text(0, s.New.String())
	r.text(socketRole, orDash(s.Role.String()))
	r.uint(socketNetns, uint64(s.Netns))
	r.owner(socketPID, socketComm, &s.Owner)
	r.endpoint(socketLocal, s.Local)
	r.endpoint(socketPeer, s.Peer)
	if s.ExpiresIn != 0 {
		r.text(socketLeft, s.ExpiresIn.Round(time.Second/10).String())
	}
	return r.end()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func (r *row) owner(columnPID, columnComm int, o *tcp.Owner) {
	if o.Source == tcp.PIDUnknown {
		r.text(columnPID, "-")
		r.text(columnComm, "-")
		return
	}
	r.uint(columnPID, uint64(o.PID))
	r.to(columnComm)
	r.dst = appendPrintable(r.dst, o.Comm.Bytes())
}

// Connection implements [Encoder].
func (Text) Connection(dst []byte, t *tcp.Transition, c *tcp.Connection) []byte {
	r := row{append(appendClock(append(dst, "# "...), t.Time), " ended "...), len(dst)}
	r.endpoint(0, t.Local)
	r.dst = append(r.dst, " > "...)
	r.endpoint(0, t.Peer)
	if c.ClosedBy != "" {
		r.dst = append(append(r.dst, " by "...), c.ClosedBy...)
	}
	if c.OpenedAt != 0 {
		r.dst = append(r.dst, " after "...)
		r.dst = append(r.dst, (t.Monotonic - c.OpenedAt).String()...)
	}
	for _, part := range [...]struct {
		name  string
		count uint64
	}{{", sent ", c.Sent}, {", received ", c.Received}, {", retransmits ", uint64(c.Retransmits)}} {
		r.dst = append(r.dst, part.name...)
		r.dst = strconv.AppendUint(r.dst, part.count, 10)
	}
	return r.end()
}

// Stats implements [Encoder].
func (Text) Stats(dst []byte, s *Stats) []byte {
	dst = append(appendClock(append(dst, "# "...), s.Time), " stats:"...)
	return append(appendCounts(dst, &s.Counts), '\n')
}

func appendCounts(dst []byte, c *Counts) []byte {
	for _, part := range [...]struct {
		name  string
		count uint64
	}{
		{" seen ", c.Seen()}, {", filtered ", c.Filtered}, {", lost ", c.Lost()}, {", read ", c.Read},
		{", written ", c.Written},
	} {
		dst = append(dst, part.name...)
		dst = strconv.AppendUint(dst, part.count, 10)
	}
	return dst
}

// Loss implements [Encoder].
func (Text) Loss(dst []byte, l *Loss) []byte {
	dst = append(appendClock(append(dst, "# "...), l.Time), " lost "...)
	dst = strconv.AppendUint(dst, l.Lost, 10)
	dst = append(dst, " transitions"...)
	if l.LostConnections > 0 {
		dst = strconv.AppendUint(append(dst, ", "...), l.LostConnections, 10)
		dst = append(dst, " connections"...)
	}
	if l.LostTimeWaitEnds > 0 {
		dst = strconv.AppendUint(append(dst, ", "...), l.LostTimeWaitEnds, 10)
		dst = append(dst, " ends of TIME_WAITs"...)
	}
	return append(append(append(dst, ": "...), l.Cause...), '\n')
}

// Stop implements [Encoder].
func (Text) Stop(dst []byte, s *Stop) []byte {
	dst = append(appendClock(append(dst, "# "...), s.Time), " stop: "...)
	dst = append(dst, s.Reason...)
	if s.Signal != "" {
		dst = append(append(dst, ' '), s.Signal...)
	}
	dst = append(dst, ';')
	return append(appendCounts(dst, &s.Counts), '\n')
}

func appendClock(dst []byte, at time.Time) []byte {
	return at.UTC().AppendFormat(dst, "15:04:05.000000")
}

// appendPrintable writes what is not printable as an escape, \x1b or \u202e, and a
// backslash as two: nothing in it can move a cursor or look like another name.
func appendPrintable(dst, s []byte) []byte {
	for len(s) > 0 {
		r, size := utf8.DecodeRune(s)
		switch {
		case r == utf8.RuneError && size == 1:
			dst = append(dst, '\\', 'x', hexDigits[s[0]>>4], hexDigits[s[0]&15])
		case r == '\\':
			dst = append(dst, `\\`...)
		case strconv.IsPrint(r):
			dst = append(dst, s[:size]...)
		case r < utf8.RuneSelf:
			dst = append(dst, '\\', 'x', hexDigits[r>>4], hexDigits[r&15])
		case r < 0x10000:
			dst = appendEscaped(dst, uint16(r))
		default:
			dst = append(dst, `\U`...)
			for shift := 28; shift >= 0; shift -= 4 {
				dst = append(dst, hexDigits[r>>shift&15])
			}
		}
		s = s[size:]
	}
	return dst
}
