package record

import (
	"strconv"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/width"
)

// appendPrintable appends s with escapes, such as \x1b or \u202e, for everything that is
// not printable, and with doubled backslashes. So no name can move the cursor, or look
// like a name that contains an escape.
func appendPrintable(dst, s []byte) []byte {
	for len(s) > 0 {
		r, size := utf8.DecodeRune(s)
		switch {
		case r == utf8.RuneError && size == 1:
			dst = append(dst, '\\', 'x', hexDigits[s[0]>>4], hexDigits[s[0]&15])
		case r == '\\':
			dst = append(dst, `\\`...)
		case isVisible(r):
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

// isVisible reports whether r shows as itself, or combines with the character before it. All
// else can make one name look like another, or move the cursor: controls, bidirectional and
// zero-width characters, spaces other than ' ', fillers, characters that Unicode does not assign.
func isVisible(r rune) bool {
	const brailleBlank = '\u2800'
	return strconv.IsPrint(r) && (r < 0x300 || r != brailleBlank &&
		!unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector))
}

const ellipsis = "…"

// cutLeft cuts the beginning of s, which is ASCII, so that s and an ellipsis take at most
// the given number of cells.
func cutLeft(s []byte, cells int) []byte {
	if len(s) <= cells {
		return s
	}
	kept := s[len(s)-max(0, cells-1):]
	return append([]byte(ellipsis), kept...)
}

// cutRight cuts the end of dst[begin:], so that dst[begin:] and an ellipsis take at most
// the given number of cells, and returns how many they take. It is for text that takes more.
func cutRight(dst []byte, begin, cells int) ([]byte, int) {
	at, taken := begin, 0
	for at < len(dst) {
		r, size := utf8.DecodeRune(dst[at:])
		w := runeWidth(r)
		if taken+w > cells-1 {
			break
		}
		at, taken = at+size, taken+w
	}
	return append(dst[:at], ellipsis...), taken + 1
}

// displayWidth returns how many cells of a terminal printable text takes.
func displayWidth(s []byte) int {
	cells := 0
	for len(s) > 0 {
		r, size := utf8.DecodeRune(s)
		cells += runeWidth(r)
		s = s[size:]
	}
	return cells
}

// runeWidth returns how many cells r takes: two for East Asian wide characters and emoji
// (Unicode UAX #11), none for combining marks.
func runeWidth(r rune) int {
	switch {
	case r < utf8.RuneSelf:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me):
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// Printable returns s with escapes for everything that is not printable, as in records of text. Different
// strings stay different.
func Printable(s string) string { return string(appendPrintable(nil, []byte(s))) }
