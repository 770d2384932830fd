package record

import (
	"bytes"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// leastShared is the width of LOCAL from which on LOCAL and PEER share their room.
const leastShared = 17

// row appends the cells of one line, from left to right. A cell too wide for its column
// pushes the rest to the right, or, where a terminal has no room for that, is cut.
type row struct {
	dst    []byte
	table  *table
	column int // cells of the terminal that are taken
	color  bool
}

// to goes on to a column, with at least one space after the one before.
func (r *row) to(column int) {
	if r.column > 0 {
		r.spaces(max(1, column-r.column))
		return
	}
	r.spaces(column)
}

func (r *row) spaces(count int) {
	for range count {
		r.dst = append(r.dst, ' ')
	}
	r.column += max(0, count)
}

// text writes a cell in a color, which may be empty.
func (r *row) text(id columnID, s string, color sgr) { writeCell(r, id, s, color) }

func (r *row) bytes(id columnID, b []byte) { writeCell(r, id, b, "") }

func (r *row) uint(id columnID, v uint64) {
	var digits [20]byte
	r.bytes(id, strconv.AppendUint(digits[:0], v, 10))
}

// writeCell is for printable characters that take one cell of the terminal each.
func writeCell[S string | []byte](r *row, id columnID, s S, color sgr) {
	if r.table.width[id] == 0 {
		return
	}
	start, cells := r.table.start[id], utf8.RuneCountInString(string(s))
	if columns[id].right {
		start += r.table.width[id] - cells
	}
	if max(start, r.column+1) >= r.table.limit {
		return
	}
	r.to(start)
	r.paint(color)
	begin := len(r.dst)
	r.dst = append(r.dst, s...)
	if room := r.table.limit - r.column; cells > room {
		r.dst, cells = cutRight(r.dst, begin, room)
	}
	r.column += cells
	r.unpaint(color)
}

func (r *row) clock(at time.Time) {
	r.dst = at.UTC().AppendFormat(r.dst, "15:04:05.000000"[:r.table.width[columnTime]])
	r.column = r.table.width[columnTime]
}

func (r *row) owner(o *tcp.Owner) {
	if o.Source == tcp.PIDUnknown {
		r.text(columnPID, "-", "")
		r.text(columnComm, "-", "")
		return
	}
	r.uint(columnPID, uint64(o.PID))
	r.to(r.table.start[columnComm])
	begin := len(r.dst)
	r.dst = appendPrintable(r.dst, o.Comm.Bytes())
	cells := displayWidth(r.dst[begin:])
	if most := r.table.width[columnComm]; cells > most && r.table.limit != unlimited {
		r.dst, cells = cutRight(r.dst, begin, most)
	}
	r.column += cells
}

// endpoints writes both ends. On a terminal one that is longer than its column takes
// the room that the other leaves, unless the columns are narrow: then most would. Where
// that is too little, ends lose their beginnings: the port and the end of an address tell
// connections apart.
func (r *row) endpoints(local, peer tcp.Endpoint) {
	var localRoom, peerRoom [64]byte // the longest IPv6 address and port have 47 bytes
	l, p := appendEndpoint(localRoom[:0], local), appendEndpoint(peerRoom[:0], peer)
	peerStart := r.table.start[columnPeer]
	localWidth, peerWidth := r.table.width[columnLocal], r.table.width[columnPeer]
	switch both := localWidth + peerWidth + r.table.spare; {
	case r.table.limit == unlimited:
	case localWidth < leastShared:
		l, p = cutEndpoint(l, localWidth), cutEndpoint(p, peerWidth)
	default:
		if len(l)+len(p) > both {
			l = cutLeft(l, max(localWidth+r.table.spare/2, both-len(p)))
			p = cutLeft(p, both-displayWidth(l))
		}
		peerStart = min(peerStart, peerStart+peerWidth+r.table.spare-displayWidth(p))
	}
	r.to(r.table.start[columnLocal])
	r.ascii(l)
	r.to(peerStart)
	r.ascii(p)
}

// cutEndpoint shortens an endpoint to so many cells: where few would be left of the
// address, to its port.
func cutEndpoint(s []byte, cells int) []byte {
	const least = 4 // of an address
	colon := bytes.LastIndexByte(s, ':')
	if len(s) > cells && colon >= 0 && cells-1-len(s[colon:]) < least {
		cells = min(cells, 1+len(s[colon:]))
	}
	return cutLeft(s, cells)
}

// ascii appends text in which only an ellipsis may have more bytes than cells.
func (r *row) ascii(s []byte) {
	r.dst = append(r.dst, s...)
	r.column += utf8.RuneCount(s)
}

func appendEndpoint(dst []byte, e tcp.Endpoint) []byte {
	switch {
	case !e.Addr.IsValid():
		dst = append(dst, '-')
	case e.Addr.Is6():
		dst = append(e.Addr.AppendTo(append(dst, '[')), ']')
	default:
		dst = e.Addr.AppendTo(dst)
	}
	if e.Port != 0 {
		dst = strconv.AppendUint(append(dst, ':'), uint64(e.Port), 10)
	}
	return dst
}
