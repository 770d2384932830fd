package record

import (
	"testing"
	"time"
)

// timeByLibrary does what timeCache.append does.
func timeByLibrary(dst []byte, at time.Time) []byte {
	return at.UTC().AppendFormat(dst, "2006-01-02T15:04:05.000000000Z")
}

const lastYear = 9999 // RFC 3339 has no year with five digits

// A time is encoded as package time formats it, in every zone and year.
func TestTime_SameAsLibrary(t *testing.T) {
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
	got, want := string(new(timeCache).append([]byte(before), at)), string(timeByLibrary([]byte(before), at))
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
