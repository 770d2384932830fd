package record

import (
	"bytes"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// Start implements [Encoder].
func (t Text) Start(dst []byte, s *Start) []byte {
	l, begin := t.layout(), len(dst)
	dst = append(dst, "# tcpshift "...)
	dst = appendPrintable(dst, []byte(s.Version))
	for _, part := range [...]struct{ before, known string }{{" on ", s.Host}, {", Linux ", s.Kernel}, {" ", s.Arch}} {
		if part.known != "" {
			dst = appendPrintable(append(dst, part.before...), []byte(part.known))
		}
	}
	dst = s.Time.UTC().AppendFormat(dst, ", 2006-01-02 15:04:05 UTC\n")
	for _, f := range s.Features {
		if f.OffReason != "" {
			dst = append(dst, "# without "...)
			dst = append(dst, f.Name...)
			dst = append(dst, ": "...)
			dst = append(appendPrintable(dst, []byte(f.OffReason)), '\n')
		}
	}
	return t.header(t.finishRemark(dst, begin, sgrDim), l.headers)
}

// Stats implements [Encoder].
func (t Text) Stats(dst []byte, s *Stats) []byte {
	begin := len(dst)
	dst = append(appendClock(append(dst, "# "...), s.Time), " stats:"...)
	return t.finishRemark(append(appendCounts(dst, &s.Counts), '\n'), begin, sgrDim)
}

func appendCounts(dst []byte, c *Counts) []byte {
	for _, part := range [...]struct {
		name  string
		count uint64
	}{
		{" transitions seen ", c.Seen()}, {", filtered ", c.Filtered}, {", lost ", c.Lost()}, {", read ", c.Read},
		{", written ", c.Written},
	} {
		dst = append(dst, part.name...)
		dst = strconv.AppendUint(dst, part.count, 10)
	}
	if c.Connections > 0 {
		dst = strconv.AppendUint(append(dst, "; connections written "...), c.Connections, 10)
	}
	return dst
}

// Loss implements [Encoder].
func (t Text) Loss(dst []byte, l *Loss) []byte {
	begin := len(dst)
	dst = append(appendClock(append(dst, "# "...), l.Time), " lost "...)
	if l.Cause == CauseRejected {
		dst = appendCount(dst, l.Lost, "record", "records")
	} else {
		dst = appendCount(dst, l.Lost, "transition", "transitions")
	}
	for _, other := range [...]struct {
		lost      uint64
		one, many string
	}{
		{l.LostConnections, "connection", "connections"}, {l.TimeWaitEndsLostQueueFull, "end of a TIME_WAIT", "ends of TIME_WAITs"},
		{l.LostAlerts, "alert", "alerts"}, {l.LostSummaries, "summary", "summaries"},
	} {
		if other.lost > 0 {
			dst = appendCount(append(dst, ", "...), other.lost, other.one, other.many)
		}
	}
	if l.LostUpdates > 0 {
		dst = strconv.AppendUint(append(dst, ", "...), l.LostUpdates, 10)
		dst = append(dst, " updates"...)
	}
	return t.finishRemark(append(append(append(dst, ": "...), l.Cause...), '\n'), begin, sgrBoldAmber)
}

// appendCount appends a number and the words for it: one if n is 1, else many.
func appendCount(dst []byte, n uint64, one, many string) []byte {
	if n == 1 {
		many = one
	}
	return append(append(strconv.AppendUint(dst, n, 10), ' '), many...)
}

// Stop implements [Encoder].
func (t Text) Stop(dst []byte, s *Stop) []byte {
	begin := len(dst)
	dst = append(appendClock(append(dst, "# "...), s.Time), " stop: "...)
	dst = append(dst, s.Reason...)
	if s.Signal != "" {
		dst = append(append(dst, ' '), s.Signal...)
	}
	dst = append(dst, ';')
	return t.finishRemark(append(appendCounts(dst, &s.Counts), '\n'), begin, sgrDim)
}

func appendClock(dst []byte, at time.Time) []byte {
	return at.UTC().AppendFormat(dst, "15:04:05.000000")
}

// finishRemark colors the lines in dst[begin:] and, on a terminal, wraps them. Each line
// must begin with a mark and a space.
func (t Text) finishRemark(dst []byte, begin int, color sgr) []byte {
	return t.finishLines(dst, begin, color, color)
}

// finishLines is finishRemark with two colors: first for the first line and for the mark
// of each line, rest for the text of the other lines.
func (t Text) finishLines(dst []byte, begin int, first, rest sgr) []byte {
	if t.Screen == nil && !t.Color {
		return dst
	}
	t.layout() // updates the width
	plain := slices.Clone(dst[begin:])
	dst = dst[:begin]
	color := first
	for line := range bytes.Lines(plain) {
		dst = t.appendWrapped(dst, bytes.TrimSuffix(line, []byte{'\n'}), first, color)
		color = rest
	}
	return dst
}

// appendWrapped appends one line as lines that fit the terminal. Each of them begins with
// the mark of line.
func (t Text) appendWrapped(dst, line []byte, markColor, color sgr) []byte {
	limit := unlimited
	if t.Screen != nil {
		limit = t.Screen.columns
	}
	const minWidth = 20 // of text in a line; a narrower terminal breaks the lines itself
	mark, text := line[:1], line[2:]
	for indent := " "; ; indent = "   " {
		var part []byte
		part, text = cutAtSpace(text, max(minWidth, limit-len(mark)-len(indent)))
		r := row{dst: dst, color: t.Color}
		r.paint(markColor)
		r.dst = append(r.dst, mark...)
		if color != markColor {
			r.unpaint(markColor)
			r.paint(color)
		}
		r.dst = append(append(r.dst, indent...), part...)
		r.unpaint(color)
		r.dst = append(r.dst, '\n')
		dst = r.dst
		if t.Screen != nil {
			t.Screen.lines++
		}
		if len(text) == 0 {
			return dst
		}
	}
}

// cutAtSpace returns as many words as fit into the given number of cells, and the rest.
// It splits a word only if the word alone does not fit.
func cutAtSpace(text []byte, cells int) (part, rest []byte) {
	space, taken := 0, 0
	indent := len(text) - len(bytes.TrimLeft(text, " "))
	for at := 0; at < len(text); {
		r, size := utf8.DecodeRune(text[at:])
		taken += runeWidth(r)
		if r == ' ' && at > indent {
			space = at
		}
		if taken > cells {
			if space > 0 {
				return bytes.TrimRight(text[:space], " "), text[space+1:]
			}
			return text[:max(1, at)], text[max(1, at):]
		}
		at += size
	}
	return text, nil
}
