package detect

import (
	"fmt"
	"testing"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// The number of processes is a lower bound, however often each of them comes back; it is
// exact for a few, and near the truth for some hundred.
func TestProcesses_NeverMoreThanTruth(t *testing.T) {
	for _, tt := range []struct{ pids, atLeast int }{{1, 1}, {5, 5}, {12, 12}, {40, 35}, {300, 180}, {5000, 400}} {
		t.Run(fmt.Sprintf("%d processes", tt.pids), func(t *testing.T) {
			var p topProcesses
			for n := range 20_000 {
				p.count(&tcp.Transition{Owner: process(uint32(1000+n%tt.pids), "worker")})
				if n%7000 == 6999 {
					p.decay()
				}
				if got := p.top().Processes; got > tt.pids {
					t.Fatalf("after %d connections: %d processes", n+1, got)
				}
			}
			if got := p.top().Processes; got < tt.atLeast {
				t.Errorf("%d processes, want at least %d", got, tt.atLeast)
			}
		})
	}
}
