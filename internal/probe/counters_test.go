package probe

import (
	"errors"
	"reflect"
	"testing"
)

// The tracepoint fired for what entered and for what was missed.
func TestCounters_Fired(t *testing.T) {
	c := ProgramCounters{Entered: 1000, Missed: 7, Deduplicated: 100, Filtered: 10}
	if got := c.Fired(); got != 1007 {
		t.Errorf("fired is %d, want 1007", got)
	}
}

// The sum has every counter of every program.
func TestCounters_Sum(t *testing.T) {
	var c Counters
	var want ProgramCounters
	sum := reflect.ValueOf(&want).Elem()
	for rank := range c {
		program := reflect.ValueOf(&c[rank]).Elem()
		for field := range program.NumField() {
			value := uint64(1) << (8 * rank) * uint64(field+1)
			program.Field(field).SetUint(value)
			sum.Field(field).SetUint(sum.Field(field).Uint() + value)
		}
	}
	if got := c.Sum(); got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// A feature with an error, or without an entry, is missing.
func TestFeatures_Has(t *testing.T) {
	features := Features{{Name: "one"}, {Name: "other", Err: errors.New("not here")}}
	for name, want := range map[string]bool{"one": true, "other": false, "third": false} {
		if got := features.has(name); got != want {
			t.Errorf("has(%q) is %v, want %v", name, got, want)
		}
	}
}

// A HostError is one sentence: the problem, then the remedy.
func TestHostError_Message(t *testing.T) {
	err := &HostError{"this kernel has no BPF ring buffer", "use Linux 5.8 or later"}
	if got, want := err.Error(), "this kernel has no BPF ring buffer: use Linux 5.8 or later"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
