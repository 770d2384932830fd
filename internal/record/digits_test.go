package record

import (
	"math"
	"net/netip"
	"strconv"
	"testing"
)

// Each number next to a power of ten or of two, where a digit more begins.
func edges() (all []uint64) {
	all = append(all, 0, math.MaxUint64)
	for _, base := range []uint64{2, 10} {
		for v := base; v > 1 && v < math.MaxUint64/base; v *= base {
			all = append(all, v-1, v, v+1)
		}
	}
	return append(all, 9_999_999_999_999_999_999, 10_000_000_000_000_000_000, 10_000_000_000_000_000_001, 1<<63-1, 1<<63)
}

func TestNumbersAreWrittenAsTheLibraryWritesThem(t *testing.T) {
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
	if got, want := string(appendHex([]byte(before), v)), before+strconv.FormatUint(v, 16); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func FuzzNumber(f *testing.F) {
	for _, v := range edges() {
		f.Add(v)
	}
	f.Fuzz(checkNumber)
}

func TestAddressesAreWrittenAsTheLibraryWritesThem(t *testing.T) {
	for i := range 256 {
		checkAddr(t, netip.AddrFrom4([4]byte{byte(i), byte(255 - i), byte(i), byte(255 - i)}))
	}
	for _, a := range []string{"::", "::1", "::ffff:192.0.2.1", "fe80::1", "2001:db8:1234:5678:9abc:def0:1234:5678"} {
		checkAddr(t, netip.MustParseAddr(a))
	}
}

func checkAddr(t *testing.T, a netip.Addr) {
	t.Helper()
	const before = "before "
	if got, want := string(appendAddr([]byte(before), a)), before+a.String(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
