package record

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

// stringByRunes does what appendString does, one rune at a time.
func stringByRunes(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for s != "" {
		r, size := utf8.DecodeRuneInString(s)
		switch encoded := s[:size]; {
		case r == utf8.RuneError && size == 1:
			dst = append(dst, `\ufffd`...)
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r == '\n':
			dst = append(dst, `\n`...)
		case r == '\t':
			dst = append(dst, `\t`...)
		case r < 0x20 || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029':
			dst = fmt.Appendf(dst, `\u%04x`, r)
		default:
			dst = append(dst, encoded...)
		}
		s = s[size:]
	}
	return append(dst, '"')
}

// The escape of a character does not depend on the characters around it.
func TestString_EscapesBetweenPlainParts(t *testing.T) {
	var special []string
	for r := rune(0); r < 0x100; r++ {
		special = append(special, string(r), string([]byte{byte(r)}))
	}
	for _, h := range hostileComms {
		special = append(special, h.comm)
	}
	for _, s := range special {
		for _, around := range []string{"", "x", "plain text", "é", "\x00", "\xff"} {
			checkString(t, s+around)
			checkString(t, around+s)
			checkString(t, around+s+around)
			checkString(t, around+s+s+around)
		}
	}
}

func checkString(t *testing.T, s string) {
	t.Helper()
	const before = "before "
	want := string(stringByRunes([]byte(before), s))
	if got := string(appendString([]byte(before), s)); got != want {
		t.Errorf("%q becomes %s, want %s", s, got, want)
	}
	if got := string(appendString([]byte(before), []byte(s))); got != want {
		t.Errorf("%q as bytes becomes %s, want %s", s, got, want)
	}
}

func FuzzString(f *testing.F) {
	for _, h := range hostileComms {
		f.Add(h.comm)
	}
	f.Add(strings.Repeat("plain", 100) + "\x7f" + strings.Repeat("é", 100))
	f.Fuzz(checkString)
}

func BenchmarkString(b *testing.B) {
	for _, s := range []struct{ name, text string }{
		{"comm", "fifteen-bytes-1"}, {"cgroup", pod().Path}, {"hostile comm", "\x1b\xff\u0085\u2028\u202e"},
	} {
		b.Run(s.name, func(b *testing.B) {
			b.ReportAllocs()
			buf := make([]byte, 0, 1024)
			for b.Loop() {
				buf = appendString(buf[:0], s.text)
			}
		})
	}
}
