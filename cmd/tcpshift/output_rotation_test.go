package main

import "testing"

// Each unit may be used for a large file: the number before it may have up to 32 bits.
func TestFileSize_AnyUnit(t *testing.T) {
	for text, want := range map[string]int64{"64KiB": 64 << 10, "1048576KiB": 1 << 30, "2097152MiB": 2 << 40, "100GiB": 100 << 30} {
		if got, err := parseFileSize(text); got != want || err != nil {
			t.Errorf("%s is %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"63KiB", "0GiB", "-1GiB", "9999999999GiB", "1.5GiB", "100", "GiB", ""} {
		if got, err := parseFileSize(text); err == nil {
			t.Errorf("%q is %d, want an error", text, got)
		}
	}
}
