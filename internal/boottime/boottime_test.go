package boottime

import (
	"testing"
	"time"
)

// The offset of a time namespace is read from its line.
func TestOffset_ParseLine(t *testing.T) {
	for line, want := range map[string]time.Duration{
		"boottime           0         0":           0,
		"boottime      -86400 500000000":           -24*time.Hour + 500*time.Millisecond,
		"boottime           7         1":           7*time.Second + 1,
		"monotonic           7         0":          -1,
		"boottime           x         0":           -1,
		"boottime           7":                     -1,
		"":                                         -1,
		"boottime 7 99999999999999999999999999999": -1,
	} {
		got, ok := parse(line)
		if !ok {
			got = -1
		}
		if got != want {
			t.Errorf("%q is %v, want %v", line, got, want)
		}
	}
}

// The clock advances with time.
func TestNow_Advances(t *testing.T) {
	before := Now()
	time.Sleep(time.Millisecond)
	if after := Now(); after-before < time.Millisecond {
		t.Errorf("%v after %v, though a millisecond has passed", after, before)
	}
}
