package detect

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// For random loads: no alert comes where everything fits well, and one comes before a
// connect() fails after its rate has lasted for a while.
func TestStorm_RandomLoads(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(3, 4))
	silent, warned := 0, 0
	for round := range 60 {
		ports := 100 + random.IntN(2000)
		h := newHost(t, ports, Config{})
		h.random = rand.New(rand.NewPCG(uint64(round), 5))
		peak, steadySince, rate := 0, h.now, 0.0
		for range 4 + random.IntN(5) {
			if h.failed > 0 {
				break
			}
			steadySince = h.now
			rate = float64(ports) / 61 * random.Float64() * []float64{0.47, 0.95, 1.6}[round%3]
			w := load{key: to(80), by: []tcp.Owner{curl}, rate: constant(rate), bursts: 1 + random.IntN(1+ports/100)}
			for range 4 + random.IntN(10) {
				h.run(w, 10*time.Second, true)
				peak = max(peak, len(h.waiting(to(80))))
			}
		}
		opened := only(h.alerts, "time_wait_storm", Open)
		lasted := h.failed - steadySince
		switch {
		case h.failed > 0 && lasted > 20*time.Second && rate*60 > 1.03*float64(ports):
			// Near the capacity chance decides.
			warned++
			if len(opened) == 0 || opened[0].Monotonic >= h.failed {
				t.Errorf("round %d, %d ports: no alert before the first failure, %v after the rate became %.1f", round, ports, lasted, rate)
			}
		case round%3 < 2:
			silent++
			if len(opened) > 0 {
				t.Errorf("round %d, %d ports, at most %d taken: %+v", round, ports, peak, opened[0])
			}
		}
	}
	t.Logf("%d rounds with a failure, %d far from one", warned, silent)
	if warned < 5 || silent < 1 {
		t.Error("these rounds prove nothing")
	}
}
