package detect

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect/rate"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// simKill removes timewait sockets of a destination, as "ss --kill" does: no transition shows it.
type simKill struct {
	to          *simDestination
	from, until time.Duration
	at          time.Duration // the next one
	every       time.Duration // 0: only once
	share       float64       // of the timewait sockets
}

func (x *simKill) String() string {
	return fmt.Sprintf("%.2f of the timewait sockets of %v:%d are killed from %v to %v every %v",
		x.share, x.to.key.peer, x.to.key.peerPort, x.from-time.Hour, x.until-time.Hour, x.every)
}

// addKills draws from a source of its own, so that the other parts of a simulation are what its seed has always made.
func (r *simRun) addKills(always bool) {
	random := rand.New(rand.NewPCG(r.seed, 16))
	if random.IntN(5) > 0 && !always {
		return
	}
	for range 1 + random.IntN(2) {
		x := &simKill{
			to: r.loads[random.IntN(len(r.loads))].to, at: r.k.now + simStep*time.Duration(200+random.IntN(1300)), share: []float64{0.3, 0.8, 1}[random.IntN(3)],
		}
		if x.from, x.until = x.at, x.at; random.IntN(2) == 0 {
			x.every, x.until = simStep*time.Duration(1+random.IntN(200)), x.at+simStep*time.Duration(random.IntN(900))
		}
		r.kills = append(r.kills, x)
	}
}

// kill kills what is due.
func (r *simRun) kill() {
	for _, x := range r.kills {
		if x.at > r.k.now || x.at > x.until {
			continue
		}
		r.k.kill(x.to, x.share)
		x.at += max(simStep, x.every)
	}
}

// kill leaves sockets on bound ports alone: the kernel's list of these ports is not simulated.
func (k *simKernel) kill(d *simDestination, share float64) {
	for _, s := range append([]*simSocket(nil), k.sockets...) {
		if s.to == d && !s.bound && (s.state == tcp.TimeWait || s.state == tcp.FinWait2) && k.random.Float64() < share {
			k.remove(s)
			d.killed.add(1)
		}
	}
}

// unseenKills counts the timewait sockets that were killed, and that no table has shown to the engine yet. It reads
// one every few seconds; a table that cannot be read leaves a verified number up to verifiedFor.
func (o *simOracle) unseenKills(d *simDestination) int {
	wait := refreshAfter + suspectedInterval + o.answerTime()
	if w := &o.r.tr.worker; w.fails > 0 || w.gone > 0 {
		wait = max(wait, verifiedFor+o.answerTime())
	}
	return d.killed.within(wait)
}

// hasKills reports whether timewait sockets of a destination were killed within two hold times.
func (d *simDestination) hasKills() bool { return d.killed.within(2*rate.TimeWaitHold) > 0 }
