package tcplab

import (
	"net/netip"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// StormConfig is the size and kind of a storm.
type StormConfig struct {
	Connections int      // in total
	Workers     int      // pairs of a connecting and an accepting thread; 0 means 2
	Port        uint16   // port of the first worker, the others use the next ports; 0 means 7000
	Family      Family   // V4 or V6
	End         StormEnd // how each connection is closed
}

// StormEnd is how the connections of a storm are closed. Each connection is exactly ten
// transitions, five on either side.
type StormEnd int

const (
	// ClientFirst leaves a TIME_WAIT at the client.
	//
	//	client  CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE
	//	child   LISTEN SYN_RECV ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE
	ClientFirst StormEnd = iota
	// ServerFirst leaves a TIME_WAIT at the child: the last three states of the sides
	// are exchanged.
	ServerFirst
	// HalfClosed is ClientFirst with a client that shuts down its sending side only and
	// reads the child's answer: the full socket waits in FIN_WAIT2.
	HalfClosed
	// Simultaneous makes both sides close at once. Some connections end as with ClientFirst
	// or ServerFirst. If both FINs are in flight at the same time, one side or both go
	// from FIN_WAIT1 to CLOSING; each side that does leaves a TIME_WAIT.
	Simultaneous
)

// String returns a short name for subtests.
func (e StormEnd) String() string {
	return [...]string{"client first", "server first", "half closed", "simultaneous"}[e]
}

const (
	// StormHosts is the number of addresses that share a worker's connections, so that
	// ephemeral ports are left during 60 seconds of TIME_WAIT: 127.0.1.1 and up,
	// fd00::1 and up.
	StormHosts = 64
	// stormAhead bounds how many connections a worker is ahead of its accepting thread.
	// It is far below the backlog: an overflow would cause retransmissions, and with
	// them other transitions.
	stormAhead   = 256
	stormBacklog = 4096
)

// Storm makes short connections as fast as the host can, waits until the last one has
// ended, and returns their number. Each worker's listener makes two more transitions:
// CLOSE LISTEN CLOSE. Each side that may leave a TIME_WAIT leaves one, up to
// net.ipv4.tcp_max_tw_buckets.
//
// Connecting and accepting run on different threads, so that softirqs interrupt the
// other side's handlers all the time: a tracer that cannot be re-entered then misses
// about one event in a thousand. With one thread for both sides the rate is equal, but
// such a tracer misses almost no event, so a test would show nothing.
func Storm(n *Netns, c StormConfig) int {
	n.t.Helper()
	if c.Workers == 0 {
		c.Workers = 2
	}
	if c.Port == 0 {
		c.Port = 7000
	}
	if c.Family == V6 {
		for host := range StormHosts {
			n.AddLoopbackAddr(netip.AddrFrom16(stormHost6(host)))
		}
	}
	before := n.InUse()
	workers := make([]*stormWorker, c.Workers)
	for i := range workers {
		share := (c.Connections + i) / c.Workers // all shares add up to the total
		workers[i] = newStormWorker(n, c, c.Port+uint16(i), share)
	}
	n.Threads(2*c.Workers, func(i int) error {
		w := workers[i/2]
		if c.End == Simultaneous {
			pin(i)
		}
		if i%2 == 0 {
			return w.run(w.connectAll)
		}
		return w.run(w.acceptAll)
	})
	made := 0
	for _, w := range workers {
		w.listener.Close()
		made += int(w.accepted.Load())
	}
	n.Settle(before)
	return made
}

// stormWorker is one listener, a thread that connects to it and a thread that accepts.
type stormWorker struct {
	listener *Socket
	family   Family
	end      StormEnd
	port     uint16
	share    int
	accepted atomic.Int64 // and closed
	closing  atomic.Int64 // Simultaneous: how often a thread was about to close its end
	failed   atomic.Bool
}

func newStormWorker(n *Netns, c StormConfig, port uint16, share int) *stormWorker {
	n.t.Helper()
	w := &stormWorker{family: c.Family, end: c.End, port: port, share: share}
	w.listener = n.Socket(c.Family.Loopback())
	w.listener.Bind(c.Family.Anywhere(port))
	n.must("listen", unix.Listen(w.listener.FD, stormBacklog))
	return w
}

// run runs one thread, and ends the wait of the other thread if it fails.
func (w *stormWorker) run(side func() error) error {
	err := side()
	if err != nil {
		w.failed.Store(true)
		_ = unix.Shutdown(w.listener.FD, unix.SHUT_RD)
	}
	return err
}
