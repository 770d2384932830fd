package record

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// plainTime and plainString are what a calendar and appendString do, without the
// shortcuts that make these fast.

func plainTime(dst []byte, at time.Time) []byte {
	return at.UTC().AppendFormat(dst, "2006-01-02T15:04:05.000000000Z")
}

func plainString[S string | []byte](dst []byte, s S) []byte {
	dst = append(dst, '"')
	for i := 0; i < len(s); {
		if c := s[i]; c < utf8.RuneSelf {
			dst = appendASCII(dst, c)
			i++
			continue
		}
		r, size := decodeRune(s, i)
		switch {
		case r == utf8.RuneError && size == 1:
			dst = append(dst, `\ufffd`...)
		case r < 0xa0 || r == '\u2028' || r == '\u2029':
			dst = appendEscaped(dst, uint16(r))
		default:
			dst = append(dst, s[i:i+size]...)
		}
		i += size
	}
	return append(dst, '"')
}

const lastYear = 9999 // RFC 3339 has no year with five digits

func TestEveryTimeIsWrittenAsTheLibraryWritesIt(t *testing.T) {
	zones := []*time.Location{
		time.UTC, time.FixedZone("far east", 14*60*60), time.FixedZone("far west", -12*60*60), time.FixedZone("odd", 1),
	}
	nanoseconds := []int{0, 1, 9, 10, 99_999_999, 100_000_000, 123_456_789, 999_999_999, 1_000, 500_000_000}
	for year := range lastYear + 1 {
		at := time.Date(year, time.Month(1+year%12), 1+year%31, year%24, year%60, (7*year)%60, nanoseconds[year%len(nanoseconds)],
			zones[year%len(zones)])
		checkTime(t, at)
	}
	for _, nanosecond := range nanoseconds {
		for _, year := range []int{0, 1, 999, 1000, 1969, 1970, 2026, 2262, lastYear} {
			checkTime(t, time.Date(year, time.January, 1, 0, 0, 0, nanosecond, time.UTC))
			checkTime(t, time.Date(year, time.December, 31, 23, 59, 59, nanosecond, time.UTC))
		}
	}
	checkTime(t, time.Time{})
}

func checkTime(t *testing.T, at time.Time) {
	t.Helper()
	const before = "before "
	got, want := string(new(calendar).append([]byte(before), at)), string(plainTime([]byte(before), at))
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if year := at.UTC().Year(); year >= 0 && year <= lastYear && len(got) != len(before+"2006-01-02T15:04:05.000000000Z") {
		t.Errorf("%s has not nine digits after the second", got)
	}
}

func FuzzTime(f *testing.F) {
	for _, at := range []time.Time{
		{}, moment, time.Unix(0, 0), time.Date(lastYear, 12, 31, 23, 59, 59, 999_999_999, time.UTC), time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC),
	} {
		f.Add(at.Unix(), int64(at.Nanosecond()), 3600)
	}
	f.Fuzz(func(t *testing.T, seconds, nanoseconds int64, zone int) {
		checkTime(t, time.Unix(seconds, nanoseconds).In(time.FixedZone("somewhere", zone%(24*60*60))))
	})
}

func TestEveryStringIsWrittenByTheSameRulesWhereverItsPlainPartsAre(t *testing.T) {
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
	want := string(plainString([]byte(before), s))
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

// The shortcuts next to what they stand in for: the ratio is what they gain.

func BenchmarkTime(b *testing.B) {
	for _, way := range []struct {
		name   string
		append func([]byte, time.Time) []byte
	}{{"plain", plainTime}, {"fast", new(calendar).append}} {
		b.Run(way.name, func(b *testing.B) {
			b.ReportAllocs()
			buf := make([]byte, 0, 64)
			for b.Loop() {
				buf = way.append(buf[:0], moment)
			}
		})
	}
}

func BenchmarkString(b *testing.B) {
	for _, s := range []struct{ name, text string }{
		{"comm", "fifteen-bytes-1"}, {"cgroup", pod().Path}, {"hostile comm", "\x1b\xff\u0085\u2028\u202e"},
	} {
		for _, way := range []struct {
			name   string
			append func([]byte, string) []byte
		}{{"plain", plainString[string]}, {"fast", appendString[string]}} {
			b.Run(s.name+"/"+way.name, func(b *testing.B) {
				b.ReportAllocs()
				buf := make([]byte, 0, 1024)
				for b.Loop() {
					buf = way.append(buf[:0], s.text)
				}
			})
		}
	}
}
