package probe

import (
	"errors"
	"testing"
)

func TestFiredIsWhatEnteredAndWhatWasMissed(t *testing.T) {
	c := ProgramCounters{Entered: 1000, Missed: 7, Deduplicated: 100, Filtered: 10}
	if got := c.Fired(); got != 1007 {
		t.Errorf("fired is %d, want 1007", got)
	}
}

func TestAFeatureIsThereOnlyWithoutAnError(t *testing.T) {
	features := Features{{Name: "one"}, {Name: "other", Err: errors.New("not here")}}
	for name, want := range map[string]bool{"one": true, "other": false, "third": false} {
		if got := features.has(name); got != want {
			t.Errorf("has(%q) is %v, want %v", name, got, want)
		}
	}
}

func TestAHostErrorIsOneSentenceWithTheRemedy(t *testing.T) {
	err := &HostError{"this kernel has no BPF ring buffer", "use Linux 5.8 or later"}
	if got, want := err.Error(), "this kernel has no BPF ring buffer: use Linux 5.8 or later"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
