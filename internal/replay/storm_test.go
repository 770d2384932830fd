package replay_test

import (
	"net/netip"
	"slices"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// engine is what a storm drives.
type engine interface {
	Observe(t *tcp.Transition)
	ResetDecided(t *tcp.Transition)
	AddLost(now time.Duration, count uint64)
	AddLeftOut(sockets uint64)
	SetThresholds(c detect.Config)
	Seed(now time.Duration, netns uint32, s *tcp.Socket)
	SeedingDone(now time.Duration)
	Update(now time.Duration, netns uint32, l *tcp.Limits)
	UpdateHalfClosed(now, readAt time.Duration, netns uint32, sockets []tcp.Socket)
	UpdateCloseWait(now, readAt time.Duration, netns uint32, sockets []tcp.CloseWaitSocket)
	UpdateOpen(now, since time.Duration, netns uint32, o *detect.OpenSockets)
	UpdateSuspects(now time.Duration, c *detect.SuspectCounts)
	UpdateListeners(now time.Duration, netns uint32, t *detect.ListenTable)
	Requests(now time.Duration) []detect.Request
	Tick(now time.Duration) []detect.Alert
	Finish(now time.Duration) []detect.Alert
	Usage(now time.Duration) []detect.Usage
}

const (
	began = 1000*time.Hour + 123456789*time.Nanosecond
	netns = 4026531840
	wall  = 56 * 365 * 24 * time.Hour
)

var (
	client = netip.MustParseAddr("10.0.0.1")
	server = netip.MustParseAddr("10.0.0.2")
	cgroup = &tcp.Cgroup{Path: "/system.slice/wget.service", Unit: "wget.service"}
)

// storm makes the inputs of a storm and of some other faults, beside losses, and answers what the engine asks for. The process
// that opens the connections ends on the way.
type storm struct {
	engine   engine
	now      time.Duration
	cookie   uint64
	sockets  []tcp.Socket // in the kernel's table; the time of a TIME_WAIT is that of its creation
	leaked   []tcp.CloseWaitSocket
	answers  []func()
	buckets  int   // of TIME_WAITs that the kernel keeps
	without  int64 // connections that were closed without a TIME_WAIT because of that
	pid      uint32
	finished func(alerts []detect.Alert) // gets the alerts of each tick
}

func (s *storm) limits() *tcp.Limits {
	return &tcp.Limits{
		PortLow: 40000, PortHigh: 40999, Reserved: tcp.PortSetOf(40001, 40002, 40003, 40090), Bound: tcp.PortSetOf(22, 80, 40500),
		BindBuckets: tcp.PortSetOf(22, 80), BoundReadAt: s.now.Truncate(10 * time.Second), Reuse: 2, ReuseDelay: time.Second, Timestamps: true,
		FinTimeout: time.Minute, MaxTimeWaits: s.buckets, TimeWaits: s.timeWaits(), TimeWaitOverflows: s.without,
	}
}

func (s *storm) timeWaits() (n int) {
	for i := range s.sockets {
		if s.sockets[i].New == tcp.TimeWait {
			n++
		}
	}
	return n
}

func (s *storm) transition(old, next tcp.State) tcp.Transition {
	t := tcp.Transition{
		Monotonic: s.now, Cookie: s.cookie, Netns: netns, UID: 1000, CgroupID: 77, Cgroup: cgroup, Old: old, New: next, Role: tcp.RoleClient,
		Local: tcp.Endpoint{Addr: client, Port: 40004 + uint16(s.cookie%900)}, Peer: tcp.Endpoint{Addr: server, Port: 8443},
	}
	t.Owner = tcp.Owner{PID: s.pid, Source: tcp.PIDTask}
	copy(t.Owner.Comm[:], "wget \"\xff")
	return t
}

func (s *storm) socket(t tcp.Transition, expiresIn time.Duration) tcp.Socket {
	t.Cgroup = nil
	return tcp.Socket{Transition: t, ExpiresIn: expiresIn}
}

// connection opens a connection and closes it to a TIME_WAIT.
func (s *storm) connection() {
	s.cookie++
	open := s.transition(tcp.Close, tcp.SynSent)
	open.Local.Port = 0
	s.engine.Observe(&open)
	if s.timeWaits() >= s.buckets {
		s.without++
		closed := s.transition(tcp.FinWait2, tcp.Close)
		s.engine.Observe(&closed)
		return
	}
	closed := s.transition(tcp.FinWait2, tcp.TimeWait)
	closed.Substate, closed.PeerTimestamp, closed.PeerFIN = tcp.TimeWait, true, true
	s.engine.Observe(&closed)
	s.sockets = append(s.sockets, s.socket(closed, time.Minute))
}

// failure is a connect() that the peer refuses with a reset, decided late.
func (s *storm) failure() {
	s.cookie++
	open := s.transition(tcp.Close, tcp.SynSent)
	open.Local.Port, open.Peer.Port = 0, 9
	s.engine.Observe(&open)
	closed := s.transition(tcp.SynSent, tcp.Close)
	closed.Peer.Port, closed.Error, closed.ResetAwaited = 9, 111, true
	s.engine.Observe(&closed)
	closed.ResetSent, closed.ResetCode = true, 3
	s.engine.ResetDecided(&closed)
}

// leak leaves a connection of a server in CLOSE_WAIT.
func (s *storm) leak() {
	s.cookie++
	t := s.transition(tcp.Established, tcp.CloseWait)
	t.Role, t.Local.Port, t.Peer.Port = tcp.RoleServer, 80, 50000+uint16(s.cookie%1000)
	s.engine.Observe(&t)
	s.leaked = append(s.leaked, tcp.CloseWaitSocket{Cookie: s.cookie, SinceSent: time.Hour, Accepted: true})
}

// answer answers a request after a moment.
func (s *storm) answer(r detect.Request) {
	readAt, l := s.now, s.limits()
	var counts *detect.SuspectCounts
	if r.Suspects != nil {
		counts = r.Suspects.NewCounts(readAt, l)
		for i := range s.sockets {
			counts.Add(netns, &s.sockets[i])
		}
		counts.Done(readAt + time.Millisecond)
	}
	open := new(detect.OpenSockets)
	for i := range s.sockets {
		open.Add(netns, &s.sockets[i], l)
	}
	stuck := s.transition(tcp.FinWait1, tcp.FinWait2)
	stuck.Cookie = 1 << 40
	sockets, leaked := []tcp.Socket{s.socket(stuck, 0)}, slices.Clone(s.leaked)
	s.answers = append(s.answers, func() {
		if r.Listeners != nil {
			s.engine.UpdateListeners(s.now, netns, &detect.ListenTable{ReadAt: readAt, Overflows: 3, Listeners: []tcp.Listener{
				{Cookie: 5, Local: tcp.Endpoint{Addr: server, Port: 80}, Queued: 9, Backlog: 8, Drops: uint32(s.now / time.Second), Inode: 7},
			}})
		}
		if r.OnlyListeners {
			return
		}
		s.engine.Update(s.now, netns, l)
		if counts != nil {
			s.engine.UpdateSuspects(s.now, counts)
		}
		if r.HalfClosed {
			s.engine.UpdateHalfClosed(s.now, readAt, netns, sockets)
		}
		if r.CloseWait {
			s.engine.UpdateCloseWait(s.now, readAt, netns, leaked)
		}
		if r.OpenRequestedAt > 0 {
			s.engine.UpdateOpen(s.now, r.OpenRequestedAt, netns, open)
		}
	})
}

// run runs the storm for a time.
func (s *storm) run(length time.Duration) {
	s.now, s.pid = began+time.Millisecond, 4711
	s.engine.Update(s.now, netns, s.limits())
	for range 20 {
		s.cookie++
		old := s.socket(s.transition(0, tcp.Established), 0)
		s.engine.Seed(s.now, netns, &old)
		s.sockets = append(s.sockets, old)
	}
	s.engine.SeedingDone(s.now)
	s.engine.AddLeftOut(3)
	for turn := 1; s.now < began+length; turn++ {
		s.now += 50 * time.Millisecond
		if turn == 500 {
			s.pid++ // the process is another one from here on: see isGone
		}
		for range 2 {
			s.connection()
		}
		s.failure()
		if turn%20 == 0 {
			s.leak()
		}
		if turn == 300 {
			s.engine.AddLost(s.now, 40)
		}
		if turn%100 == 0 {
			s.engine.Usage(s.now)
		}
		if turn == 700 {
			s.engine.SetThresholds(detect.Config{Threshold: 0.8})
		}
		s.sockets = slices.DeleteFunc(s.sockets, func(each tcp.Socket) bool { return each.New == tcp.TimeWait && s.now-each.Monotonic > time.Minute })
		for i := range s.sockets {
			if each := &s.sockets[i]; each.New == tcp.TimeWait {
				each.ExpiresIn = time.Minute - (s.now - each.Monotonic)
			}
		}
		answers := s.answers
		s.answers = nil
		for _, answer := range answers {
			answer()
		}
		for _, r := range s.engine.Requests(s.now) {
			s.answer(r)
		}
		s.finished(s.engine.Tick(s.now))
	}
	s.finished(s.engine.Finish(s.now))
}

// isGone is the host's answer: the first process has ended after a while.
func (s *storm) isGone(p detect.Process) bool { return p.PID == 4711 && s.now > began+40*time.Second }

// linesOf encodes alerts as records without a number.
func linesOf(alerts []detect.Alert) (lines []string) {
	enc := record.NewEncoder(record.SchemaNative, nil)
	for i := range alerts {
		lines = append(lines, string(enc.Alert(nil, &alerts[i])))
	}
	return lines
}
