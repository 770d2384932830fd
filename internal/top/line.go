package top

import (
	"strings"

	"github.com/tcpshift/tcpshift/internal/record"
)

// look is how text looks. A terminal without colors shows bold and reverse only.
type look uint8

const (
	plain look = iota
	bold
	dim
	heading  // of a table
	selected // the row under the cursor
	good
	notable
	bad
)

// span is text of one look. The text has passed record.Printable where it is not a constant.
type span struct {
	text string
	look look
}

// line is one row of the screen.
type line []span

func (l line) cells() (n int) {
	for _, s := range l {
		n += record.Cells(s.text)
	}
	return n
}

// String is the text of the line.
func (l line) String() string {
	var b strings.Builder
	for _, s := range l {
		b.WriteString(s.text)
	}
	return b.String()
}

// fit cuts the line to a width.
func (l line) fit(width int) line {
	used := 0
	for i, s := range l {
		n := record.Cells(s.text)
		if used+n > width {
			cut := append(line{}, l[:i]...)
			return append(cut, span{record.Fit(s.text, width-used), s.look})
		}
		used += n
	}
	return l
}

// padLeft and padRight make text at least as wide as a number of cells.
func padLeft(s string, cells int) string {
	return strings.Repeat(" ", max(0, cells-record.Cells(s))) + s
}

func padRight(s string, cells int) string {
	return s + strings.Repeat(" ", max(0, cells-record.Cells(s)))
}

// cell makes text exactly as wide as a number of cells.
func cell(s string, cells int, left bool) string {
	s = record.Fit(s, cells)
	if left {
		return padRight(s, cells)
	}
	return padLeft(s, cells)
}

// eighths are bars that end within a cell.
var eighths = [...]string{"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"}

// bar draws a part of a whole in a number of cells. What is not zero is visible. ascii draws it with # only.
func bar(part, whole uint64, cells int, ascii bool) string {
	if part == 0 || whole == 0 || cells <= 0 {
		return ""
	}
	share := min(1, float64(part)/float64(whole))
	if ascii {
		return strings.Repeat("#", max(1, int(share*float64(cells)+0.5)))
	}
	n := max(1, int(share*float64(cells)*8+0.5))
	return strings.Repeat("█", n/8) + eighths[n%8]
}

// wrap breaks text into lines between its words. A word that is longer than a line is cut.
func wrap(text string, width int) (lines []string) {
	var now string
	for _, word := range strings.Fields(text) {
		switch {
		case now == "":
			now = word
		case record.Cells(now)+1+record.Cells(word) <= width:
			now += " " + word
		default:
			lines, now = append(lines, now), word
		}
		now = record.Fit(now, width)
	}
	if now != "" {
		lines = append(lines, now)
	}
	return lines
}
