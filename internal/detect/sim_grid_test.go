package detect

import (
	"fmt"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// simGridCase is a storm whose peers close late or never, and whose timewait sockets are killed again and again.
type simGridCase struct {
	fin      float64 // seconds until the peers close
	every    float64 // seconds between two kills
	share    float64 // of the timewait sockets that are killed
	perPort  float64 // connections a second for each port
	untimed  bool    // the peers have no timestamps
	reuse    int     // net.ipv4.tcp_tw_reuse
	finWait2 bool    // connect() takes over sockets in FIN_WAIT2, too
}

func (c *simGridCase) scenario() *simScenario {
	const ports = 300
	return &simScenario{
		ports: ports, end: 150, before: 20 * time.Millisecond, after: 20 * time.Millisecond,
		limits: func(l *tcp.Limits) { l.Reuse, l.ReusesFinWait2 = c.reuse, c.finWait2 },
		loads: []simLoad{client(80, 1, 5, 130, c.perPort*ports, func(l *simLoad) {
			l.finAfter, l.untimed, l.lasting = seconds(c.fin), c.untimed, 300*time.Millisecond
		})},
		kills: []simKill{{to: &simDestination{key: to(80)}, from: seconds(20), until: seconds(110), every: seconds(c.every), share: c.share}},
	}
}

// No alert is false, missed or wrong where sockets are killed whose peers close late or never: a part of a grid of
// delays, intervals and shares. Kills look like peers that close, and no transition shows either.
func TestSimulation_KillsOfLateFINs(t *testing.T) {
	t.Parallel()
	var cases []simGridCase
	for _, every := range []float64{3.1, 9.7, 19, 45} {
		for _, share := range []float64{0.3, 1} {
			for _, fin := range []float64{12, 27} {
				cases = append(cases, simGridCase{fin: fin, every: every, share: share, perPort: 0.2, untimed: true, reuse: 1, finWait2: every > 10})
			}
			cases = append(cases,
				simGridCase{fin: 27, every: every, share: share, perPort: 0.2, reuse: 1},
				simGridCase{fin: 4.4, every: every, share: share, perPort: 0.2},
			)
			if share == 1 || every > 10 { // else those that are killed are taken for a part of the peers that closes
				cases = append(cases, simGridCase{fin: 300, every: every, share: share, perPort: 0.03, reuse: 1},
					simGridCase{fin: 300, every: every, share: share, perPort: 0.2, reuse: 1})
			}
		}
	}
	for i := range cases {
		c := &cases[i]
		t.Run(fmt.Sprintf("%+v", *c), func(t *testing.T) {
			t.Parallel()
			if r := c.scenario().run(uint64(1 + i%2)); len(r.oracle.faults) > 0 {
				t.Errorf("%s%s", r.describe(), r.oracle.faults)
			}
		})
	}
}
