package main

import "testing"

// A size is a power of two with a unit, within the range of a ring buffer.
func TestFlags_BufferSize(t *testing.T) {
	for text, want := range map[string]int{
		"64KiB": 64 << 10, "1024KiB": 1 << 20, "1MiB": 1 << 20, "16MiB": 16 << 20, "1024MiB": 1 << 30, "1GiB": 1 << 30,
	} {
		if got, err := parseBufferSize(text); err != nil || got != want {
			t.Errorf("parseBufferSize(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "KiB", "64", "64kib", "64 KiB", "0KiB", "-64KiB", "+64KiB", "63KiB", "32KiB", "65KiB", "2GiB", "1.5MiB", "0x40KiB",
		"4294967295GiB", "4294967296GiB", "18446744073709551616KiB", "64KiBKiB",
	} {
		if got, err := parseBufferSize(text); err == nil {
			t.Errorf("parseBufferSize(%q) = %d, want an error", text, got)
		}
	}
}
