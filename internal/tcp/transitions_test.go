package tcp

import "testing"

// Every transition to Close or TimeWait ends something, except one of a socket that is in Close.
func TestTransitions_Ends(t *testing.T) {
	ends := EndTransitions()
	for _, old := range States() {
		for _, next := range States() {
			want := old != Close && (next == Close || next == TimeWait)
			if ends.Has(old, next) != want {
				t.Errorf("Ends has %v → %v: %v, want %v", old, next, !want, want)
			}
		}
	}
}
