package record

import (
	"strconv"
	"strings"
	"time"
)

// Duration writes a duration for people as records of text do, in at most seven cells up to 999 days.
func Duration(d time.Duration) string { return string(appendDuration(nil, d)) }

// Size writes a number of bytes for people as records of text do, in at most five cells.
func Size(n uint64) string { return string(appendSize(nil, n)) }

// Count writes a number with commas: 12,345.
func Count(n uint64) string {
	digits := strconv.FormatUint(n, 10)
	var b strings.Builder
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return b.String()
}

// Cells is how many cells of a terminal printable text takes: see [Printable].
func Cells(s string) int { return displayWidth([]byte(s)) }

// Fit cuts the end of printable text so that it takes at most the given number of cells, with an ellipsis where
// something is missing.
func Fit(s string, cells int) string {
	switch {
	case cells <= 0:
		return ""
	case Cells(s) <= cells:
		return s
	}
	cut, _ := cutRight([]byte(s), 0, cells)
	return string(cut)
}
