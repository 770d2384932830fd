package tcplab

import (
	"net/netip"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// StormConfig says how hard a storm blows.
type StormConfig struct {
	Connections int      // in all
	Workers     int      // pairs of a connecting and an accepting thread; 2 if 0
	Port        uint16   // where the first worker listens, the others on the next ones; 7000 if 0
	Family      Family   // V4 or V6
	End         StormEnd // how each connection is closed
}

// StormEnd is how the connections of a storm are closed. Each one is exactly ten
// transitions, five of either side, however it is closed.
type StormEnd int

const (
	// ClientFirst leaves a TIME_WAIT at the client.
	//
	//	client  CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE
	//	child   LISTEN SYN_RECV ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE
	ClientFirst StormEnd = iota
	// ServerFirst leaves it at the child: the last three states are the other way round.
	ServerFirst
	// HalfClosed is as ClientFirst, but that the client shuts down its side only
	// and reads the child's answer: it waits as itself in FIN_WAIT2.
	HalfClosed
	// Together has both sides close at once. Some end as in the two first, and
	// where both FINs are under way at the same time one side goes from FIN_WAIT1
	// to CLOSING, or both do; each that does leaves a TIME_WAIT.
	Together
)

func (e StormEnd) String() string {
	return [...]string{"client first", "server first", "half closed", "together"}[e]
}

const (
	// StormHosts addresses share a worker's connections, so that 60 seconds of
	// TIME_WAIT leave ephemeral ports for the next: 127.0.1.1 and up, fd00::1 and up.
	StormHosts = 64
	// stormAhead bounds how far a worker connects ahead of its accepting
	// thread. It stays far below the backlog, whose overflow would bring
	// retransmissions and with them other transitions.
	stormAhead   = 256
	stormBacklog = 4096
)

// Storm makes short connections as fast as the host can, and returns how many it
// made once the last of them is settled. Each worker's listener is two more
// transitions: CLOSE LISTEN CLOSE. Who may leave a TIME_WAIT leaves one, until
// net.ipv4.tcp_max_tw_buckets of them exist.
//
// Connecting and accepting threads are apart on purpose: softirqs then
// interrupt the other side's handlers all the time, and a tracer that cannot
// be re-entered misses about one event in a thousand. One thread for both
// sides is no slower, but misses almost none and so proves nothing.
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
			n.AddAddr(netip.AddrFrom16(stormHost6(host)))
		}
	}
	before := n.InUse()
	workers := make([]*stormWorker, c.Workers)
	for i := range workers {
		share := (c.Connections + i) / c.Workers // the shares add up to the whole
		workers[i] = newStormWorker(n, c, c.Port+uint16(i), share)
	}
	n.Threads(2*c.Workers, func(i int) error {
		w := workers[i/2]
		if c.End == Together {
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

// stormWorker is one listener, the thread that connects to it and the one that accepts.
type stormWorker struct {
	listener *Socket
	family   Family
	end      StormEnd
	port     uint16
	share    int
	accepted atomic.Int64 // and closed
	met      atomic.Int64 // Together: how often a thread has come to close its end
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

// run ends the other thread's wait when this one fails.
func (w *stormWorker) run(side func() error) error {
	err := side()
	if err != nil {
		w.failed.Store(true)
		_ = unix.Shutdown(w.listener.FD, unix.SHUT_RD)
	}
	return err
}
