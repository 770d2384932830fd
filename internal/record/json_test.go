package record

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf16"
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
		case r < 0x10000 && !isVisible(r):
			dst = fmt.Appendf(dst, `\u%04x`, r)
		case !isVisible(r):
			high, low := utf16.EncodeRune(r)
			dst = fmt.Appendf(dst, `\u%04x\u%04x`, high, low)
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

// A name that looks like another one, or like nothing, cannot stand in a line or on a terminal.
func TestString_InvisibleCharacters(t *testing.T) {
	for _, r := range []rune{
		'\u061c', '\u200e', '\u200f', '\u202a', '\u202e', '\u2066', '\u2069', // bidirectional
		'\u200b', '\u200c', '\u200d', '\u2060', '\ufeff', '\u00ad', '\u180e', '\u034f', // of no width
		'\u00a0', '\u2003', '\u3000', '\u115f', '\u1160', '\u3164', '\uffa0', '\u2800', // spaces and fillers
		'\u2028', '\u2029', '\u009b', '\x7f', // separators and controls
		'\ufe0f', '\U000e0001', '\U000e0061', '\U000e0100', '\U0001d173', // selectors, tags, beams
		'\ue000', '\U0010ffff', '\u0378', // private, unassigned
	} {
		name := "ro" + string(r) + "ot"
		for shown, what := range map[string]string{
			string(appendString(nil, name)):            "a line",
			string(appendPrintable(nil, []byte(name))): "a terminal",
		} {
			if strings.ContainsRune(shown, r) || !strings.Contains(shown, `\`) {
				t.Errorf("%U stands in %s: %q", r, what, shown)
			}
		}
		var decoded string
		if err := json.Unmarshal(appendString(nil, name), &decoded); err != nil || decoded != name {
			t.Errorf("%U: %q, %v", r, decoded, err)
		}
	}
	for _, name := range []string{"naïve", "nai\u0308ve", "Ελλάδα", "日本語", "한국어", "🚀"} {
		if got := string(appendString(nil, name)); got != `"`+name+`"` {
			t.Errorf("%s becomes %s", name, got)
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
