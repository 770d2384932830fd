package detect

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/detect/rate"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// giveUps has the connects to one peer that processes have given up before minPatience. One alone shows nothing: a
// client that races several connects gives up all but one. They are failures if no connect to the peer succeeds.
//
// No transition that a detector needs shows a success. So giveUps counts the connects that have ended without a
// connection by the second in which they began: what is missing there has succeeded, or still waits.
type giveUps struct {
	topServices
	ended rate.Counter // connects that ended without a connection, for whatever reason
	early rate.Counter // of those: given up before minPatience
	local majority     // of the local addresses of these
}

// givenUp is the reason of such failures, as an alert's cause words it.
const givenUp = "given up by the process in less than a second"

const (
	// earlySkipped is how many seconds early give-ups wait to be judged. The connect that has won a race began at most
	// minPatience after those that are given up for it.
	earlySkipped = 3
	// maxMissing is the part of the connects that may lack an end where none is taken to have succeeded: 1/maxMissing.
	// A few ends are lost, and a few connects wait for longer.
	maxMissing = 64
)

// isGivenUpEarly reports whether t ends a connect that the process has given up before minPatience.
func isGivenUpEarly(t *tcp.Transition) bool {
	return t.Error == 0 && t.InState < minPatience && tcp.ClosedByOf(t) == tcp.ClosedByLocal
}

// countEnd counts a connect that has ended without a connection.
func (o *outcomes) countEnd(now time.Duration, t *tcp.Transition) {
	if o.gaveUp == nil {
		o.gaveUp = new(giveUps)
	}
	g := o.gaveUp
	g.advance(now)
	began := int64((t.Monotonic - t.InState) / time.Second)
	g.ended.AddAt(began, 1)
	if isGivenUpEarly(t) {
		g.early.AddAt(began, 1)
		g.local.add(t.Local.Addr)
		g.count(t)
	}
}

func (g *giveUps) advance(now time.Duration) {
	second := int64(now / time.Second)
	g.ended.Advance(second)
	g.early.Advance(second)
}

// failedEarly is how many early give-ups count as failures: those within outcomeWindow, if no connect to the peer has
// succeeded meanwhile. o must be advanced to now.
func (o *outcomes) failedEarly(now time.Duration) int64 {
	if o.gaveUp == nil {
		return 0
	}
	o.gaveUp.advance(now)
	early := o.gaveUp.early.Sum(earlySkipped, outcomeWindow)
	if early == 0 {
		return 0
	}
	const skip, window = earlySkipped - 1, outcomeWindow + 2 // a second more on both sides
	begun := o.all.Sum(skip, window)
	if missing := begun - o.gaveUp.ended.Sum(skip, window); maxMissing*missing > begun {
		return 0
	}
	return early
}

// culprits are the services of most of the bad outcomes, and local is the address that most of them are from.
func (o *outcomes) culprits(bad, early int64) (services *topServices, local majority) {
	if 2*early > bad {
		return &o.gaveUp.topServices, o.gaveUp.local
	}
	return &o.topServices, o.local
}
