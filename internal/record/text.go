package record

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Text encodes records for people: transitions, connections and the sockets of a snapshot
// as rows of a table, an alert as a paragraph that begins with '!', everything else as a remark that
// begins with '#'. No byte of a record reaches the terminal unless it is printable.
//
// The zero value is for a pipe: one line a record, columns of full width, nothing cut. Start
// has one more line for each missing feature, and headers are lines of their own.
type Text struct {
	NoTransitions, NoConnections bool // the stream has none: leave out their columns

	Color  bool
	Screen *Screen // nil: the text does not go to a terminal
}

// Screen is the terminal that the text goes to. It belongs to one [Text]. With it,
// no line is longer than the terminal is wide, except rows below 48 columns and remarks with
// room for less than 20 columns of text. An alert has several lines, and
// the header is repeated with every screen of rows.
type Screen struct {
	// Size returns the terminal's size in character cells. It is called for every record,
	// so that the text follows a change of the size.
	Size func() (columns, rows int)

	columns, rows int
	layout        *layout
	lines         int // written since the last header, including it
}

// pipeLayouts are the layouts of unlimited width, by [has transitions][has connections].
var pipeLayouts = [2][2]*layout{
	{newLayout(unlimited, false, false), newLayout(unlimited, false, true)},
	{newLayout(unlimited, true, false), newLayout(unlimited, true, true)},
}

// layout returns the layout for the present size of the terminal.
func (t Text) layout() *layout {
	if t.Screen == nil {
		return pipeLayouts[index(!t.NoTransitions)][index(!t.NoConnections)]
	}
	s := t.Screen
	columns, rows := s.Size()
	if columns != s.columns || s.layout == nil {
		s.layout = newLayout(columns, !t.NoTransitions, !t.NoConnections)
		s.lines = rows // the columns have moved: repeat the header before the next row
	}
	s.columns, s.rows = columns, rows
	return s.layout
}

// index returns 1 for true.
func index(b bool) int {
	if b {
		return 1
	}
	return 0
}

// header appends the titles of the tables.
func (t Text) header(dst []byte, tables []*table) []byte {
	for _, tb := range tables {
		r := row{dst: dst, table: tb, color: t.Color}
		r.paint(sgrBold)
		for _, id := range tb.order {
			r.title(id)
		}
		r.unpaint(sgrBold)
		r.dst = append(r.dst, '\n')
		dst = r.dst
	}
	if t.Screen != nil {
		t.Screen.lines = len(tables)
	}
	return dst
}

func (r *row) title(id columnID) {
	title := columns[id].title
	if columns[id].short != "" && len(title) > r.table.width[id] {
		title = columns[id].short
	}
	r.text(id, title, "")
}

// begin starts a row. On a terminal it repeats the header first if the last one has
// scrolled off the screen.
func (t Text) begin(dst []byte, tb *table, headers []*table) row {
	if s := t.Screen; s != nil {
		if fits := s.rows - 1; s.lines >= max(fits, len(headers)+1) {
			dst = t.header(dst, headers)
		}
		s.lines++
	}
	return row{dst: dst, table: tb, color: t.Color}
}

// Transition implements [Encoder]. It does not allocate if dst has room and no cell is
// cut.
func (t Text) Transition(dst []byte, event *tcp.Transition) []byte {
	l := t.layout()
	r := t.begin(dst, &l.transition, l.headers)
	r.clock(event.Time)
	r.owner(&event.Owner)
	r.endpoints(event.Local, event.Peer)
	r.text(columnOld, event.Old.String(), "")
	color := stateColor(event.New)
	if event.Error != 0 {
		color = sgrRed
	}
	r.text(columnNew, event.New.String(), color)
	r.text(columnRole, orDash(event.Role.String()), "")
	r.uint(columnNetns, uint64(event.Netns))
	if event.Error != 0 {
		r.text(columnError, event.Error.String(), sgrRed)
	}
	return append(r.dst, '\n')
}

// Connection implements [Encoder].
func (t Text) Connection(dst []byte, last *tcp.Transition, c *tcp.Connection) []byte {
	l := t.layout()
	r := t.begin(dst, &l.connection, l.headers)
	r.clock(last.Time)
	r.owner(&last.Owner)
	r.endpoints(last.Local, last.Peer)
	mark, markColor, endedBy, color := endedMark, sgrBold, orDash(string(c.ClosedBy)), endColor(c.ClosedBy)
	if c.Phase == tcp.PhaseUpdate {
		mark, markColor, endedBy, color = liveMark, "", "in "+last.New.String(), stateColor(last.New)
	}
	r.text(columnEnded, mark, markColor)
	lasted := time.Duration(-1)
	if c.OpenedAt != 0 {
		lasted = last.Monotonic - c.OpenedAt
	}
	var cell [32]byte
	r.bytes(columnDuration, appendDuration(cell[:0], lasted))
	r.bytes(columnTX, appendSize(cell[:0], c.Sent))
	r.bytes(columnRX, appendSize(cell[:0], c.Received))
	r.uint(columnRetrans, uint64(c.Retransmits))
	rtt := c.RTT
	if rtt == 0 {
		rtt = -1
	}
	r.bytes(columnRTT, appendDuration(cell[:0], rtt))
	r.text(columnEndedBy, endedBy, color)
	return append(r.dst, '\n')
}

// EventHeader appends the titles of the columns of transitions and connections, with which a new file
// of a trace begins.
func (t Text) EventHeader(dst []byte) []byte { return t.header(dst, t.layout().headers) }

// Header appends the titles of the columns of a snapshot.
func (t Text) Header(dst []byte) []byte {
	l := t.layout()
	return t.header(dst, []*table{&l.socket})
}

// Socket appends one line of a snapshot.
func (t Text) Socket(dst []byte, s *tcp.Socket) []byte {
	l := t.layout()
	r := t.begin(dst, &l.socket, []*table{&l.socket})
	r.text(columnState, s.New.String(), stateColor(s.New))
	r.text(columnRole, orDash(s.Role.String()), "")
	r.uint(columnNetns, uint64(s.Netns))
	r.owner(&s.Owner)
	r.endpoints(s.Local, s.Peer)
	if s.Queues.Known {
		r.uint(columnReceiveQueue, uint64(s.Queues.Receive))
		r.uint(columnSendQueue, uint64(s.Queues.Send))
	}
	if s.ExpiresIn != 0 {
		var cell [32]byte
		r.bytes(columnExpires, append(cell[:0], s.ExpiresIn.Round(time.Second/10).String()...))
	}
	return append(r.dst, '\n')
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// WithSeq implements [Encoder]: the text format has no sequence numbers.
func (Text) WithSeq(dst, line []byte, _ uint64) []byte { return append(dst, line...) }

// SetSeq implements [Encoder]: the text format has no sequence numbers.
func (Text) SetSeq(uint64) {}
