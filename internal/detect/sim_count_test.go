package detect

import "time"

// simDestination is what connections are made to, or with server the endpoint that they are
// accepted on.
type simDestination struct {
	key      destination
	server   bool
	ports    []*simSocket // of a client: by port, from limits.PortLow on
	since    time.Duration
	lastAcks int // connections in LAST_ACK that the newest count of suspects has

	recent     []simHold     // TIME_WAITs that were created within rate.MaxWindow, and some older ones
	unclosedAt time.Duration // when the first socket in FIN_WAIT2 timed out; 0: none has

	gotFailedAt time.Duration // when the engine last got a connect() that found no port; 0: never

	opened, ended           simCount // connections, and those that ended without a timewait socket
	seenOpened, seenEnded   simCount // those of opened that reached the engine; of ended, those whose beginnings did
	failed, seenFailed      simCount // connects without a port
	refused, seenRefused    simCount
	resets, seenResets      simCount
	allEnds                 simCount // of established connections
	timeWaits, seenTimeWait simCount // that were created
	killed                  simCount // timewait sockets
	seenLate                simCount // of seenTimeWait: nothing else of the connection has reached the engine
}

// simHold is how long a timewait socket keeps its port.
type simHold struct {
	at, hold time.Duration
	finWait2 bool // the peer has not closed when it is created
}

func (d *simDestination) counts() []*simCount {
	return []*simCount{
		&d.opened, &d.ended, &d.seenOpened, &d.seenEnded, &d.failed, &d.seenFailed, &d.refused, &d.seenRefused,
		&d.resets, &d.seenResets, &d.allEnds, &d.timeWaits, &d.seenTimeWait, &d.seenLate, &d.killed,
	}
}

// simCount counts what happens, step by step.
type simCount struct {
	sums []int // up to the end of each step
}

func (c *simCount) add(n int) { c.sums[len(c.sums)-1] += n }

func (c *simCount) advance() {
	if len(c.sums) == 0 {
		c.sums = append(make([]int, 0, 1<<12), 0, 0)
		return
	}
	c.sums = append(c.sums, c.sums[len(c.sums)-1])
}

// within counts what happened within a time up to now.
func (c *simCount) within(d time.Duration) int { return c.between(d, 0) }

// between counts what happened from a time before now to another one.
func (c *simCount) between(from, to time.Duration) int { return c.upTo(to) - c.upTo(from) }

func (c *simCount) upTo(before time.Duration) int {
	i := len(c.sums) - 1 - int(max(0, before)/simStep)
	if i < 0 {
		return 0
	}
	return c.sums[i]
}
