package record

import (
	"math"
	"strconv"
	"testing"
)

// edges are the numbers next to a power of two or ten, where one digit more begins.
func edges() (all []uint64) {
	all = append(all, 0, math.MaxUint64)
	for _, base := range []uint64{2, 10} {
		for v := base; v > 1 && v < math.MaxUint64/base; v *= base {
			all = append(all, v-1, v, v+1)
		}
	}
	return append(all, 9_999_999_999_999_999_999, 10_000_000_000_000_000_000, 10_000_000_000_000_000_001, 1<<63-1, 1<<63)
}

// A number is encoded as strconv formats it.
func TestDigits_SameAsLibrary(t *testing.T) {
	for _, v := range edges() {
		checkNumber(t, v)
	}
	for v := range uint64(200_000) {
		checkNumber(t, v)
	}
}

func checkNumber(t *testing.T, v uint64) {
	t.Helper()
	const before = "before "
	if got, want := string(appendUint([]byte(before), v)), before+strconv.FormatUint(v, 10); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	const billion = 1_000_000_000
	want := strconv.FormatUint(billion+v%billion, 10)[1:]
	if got := string(appendNineDigits([]byte(before), v%billion)); got != before+want {
		t.Errorf("nine digits: got %s, want %s", got, before+want)
	}
}

func FuzzNumber(f *testing.F) {
	for _, v := range edges() {
		f.Add(v)
	}
	f.Fuzz(checkNumber)
}
