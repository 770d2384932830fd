package record

import (
	"bytes"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// minSharedWidth is the smallest width of LOCAL at which LOCAL and PEER may use each
// other's free cells. Below it most endpoints would, and the columns would not align.
const minSharedWidth = 17

// row appends the cells of one line, from left to right. A cell that is too wide for its
// column moves the next cells to the right. On a terminal without room for that it is cut.
type row struct {
	dst    []byte
	table  *table
	column int // number of terminal cells written
	color  bool
}

// padTo appends spaces up to a column, and at least one space between two cells.
func (r *row) padTo(column int) {
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

// text writes a cell in a color; "" is the default color.
func (r *row) text(id columnID, s string, color sgr) { writeCell(r, id, s, color) }

func (r *row) bytes(id columnID, b []byte) { writeCell(r, id, b, "") }

func (r *row) uint(id columnID, v uint64) {
	var digits [20]byte
	r.bytes(id, strconv.AppendUint(digits[:0], v, 10))
}

// writeCell writes text whose characters are printable and take one terminal cell each.
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
	r.padTo(start)
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
	r.padTo(r.table.start[columnComm])
	begin := len(r.dst)
	r.dst = appendPrintable(r.dst, o.Comm.Bytes())
	cells := displayWidth(r.dst[begin:])
	if room := r.table.width[columnComm]; cells > room && r.table.limit != unlimited {
		r.dst, cells = cutRight(r.dst, begin, room)
	}
	r.column += cells
}

// endpoints writes LOCAL and PEER. On a terminal an endpoint that is longer than its
// column uses the cells that the other one leaves free, unless the columns are narrower
// than minSharedWidth. An endpoint that still does not fit loses its beginning, because
// the port and the end of the address are what distinguishes connections.
func (r *row) endpoints(local, peer tcp.Endpoint) {
	var localRoom, peerRoom [64]byte // the longest IPv6 address and port have 47 bytes
	l, p := appendEndpoint(localRoom[:0], local), appendEndpoint(peerRoom[:0], peer)
	peerStart := r.table.start[columnPeer]
	localWidth, peerWidth := r.table.width[columnLocal], r.table.width[columnPeer]
	switch both := localWidth + peerWidth + r.table.spare; {
	case r.table.limit == unlimited:
	case localWidth < minSharedWidth:
		l, p = cutEndpoint(l, localWidth), cutEndpoint(p, peerWidth)
	default:
		if len(l)+len(p) > both {
			l = cutLeft(l, max(localWidth+r.table.spare/2, both-len(p)))
			p = cutLeft(p, both-displayWidth(l))
		}
		peerStart = min(peerStart, peerStart+peerWidth+r.table.spare-displayWidth(p))
	}
	r.padTo(r.table.start[columnLocal])
	r.ascii(l)
	r.padTo(peerStart)
	r.ascii(p)
}

// cutEndpoint cuts an endpoint to the given number of cells. It leaves only the port if
// fewer than minAddr characters of the address would be left.
func cutEndpoint(s []byte, cells int) []byte {
	const minAddr = 4
	colon := bytes.LastIndexByte(s, ':')
	if len(s) > cells && colon >= 0 && cells-1-len(s[colon:]) < minAddr {
		cells = min(cells, 1+len(s[colon:]))
	}
	return cutLeft(s, cells)
}

// ascii appends text in which each character takes one cell.
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
