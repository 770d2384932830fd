package report

import (
	"cmp"
	"container/heap"
	"slices"
	"strconv"
	"time"

	"github.com/tcpshift/tcpshift/internal/recording"
)

const (
	// maxOpen bounds the connections whose transitions are kept until they end.
	maxOpen = 1 << 16
	// maxSteps bounds the transitions that are kept of one connection.
	maxSteps = 24
	// maxPicked bounds the connections that the page has of each way to end, and of those that are open.
	maxPicked = 200
)

// lifeKey identifies a socket: by its cookie, which is unique while a host is up.
type lifeKey struct {
	stream int
	conn   uint64
}

// life is what the recordings have of one connection.
type life struct {
	socket      recording.Socket
	owner       recording.Owner
	service     string
	connection  recording.Connection
	state       string
	first, last recording.Time
	steps       []step
	stepsMore   int // transitions that are not kept
	ended       bool
}

// step is one transition.
type step struct {
	At       recording.Time
	Old, New string
}

// lives has the connections that are open, and of those that have ended the ones that are worth a look.
type lives struct {
	open map[lifeKey]*life
	// maybeEnded is how many connections have ended since the last sweep.
	maybeEnded int
	untracked  uint64 // connections whose transitions were not kept
	picked     [maxEnds + 1]picks
	limit      int // of open
	// live means that the records come from a trace that goes on: a connection may be open for longer than anybody can see.
	live     bool
	forgotAt recording.Time // when room was last made by forgetting open connections
}

// openClass is the index in picked of the connections that have not ended.
const openClass = maxEnds

func newLives() lives { return lives{open: make(map[lifeKey]*life), limit: maxOpen} }

// keyOf returns the key of a record's socket. ok is false if the kernel gave no cookie.
func keyOf(s *stream, rec *recording.Record) (key lifeKey, ok bool) {
	cookie, err := strconv.ParseUint(rec.Conn, 16, 64)
	return lifeKey{s.id, cookie}, err == nil
}

// find returns the life of a record's socket, a new one if it has none. It is nil if the socket is not known or if there
// is no room.
func (ls *lives) find(s *stream, rec *recording.Record) (l *life, key lifeKey) {
	key, ok := keyOf(s, rec)
	if !ok {
		return nil, key
	}
	if begun := ls.open[key]; begun != nil {
		return begun, key
	}
	if len(ls.open) >= ls.limit && !ls.sweep(rec.Time) && !ls.forgetOpen(rec.Time) {
		return nil, key
	}
	l = &life{first: rec.Time}
	ls.open[key] = l
	return l, key
}

// settled is how long a connection record may come after the last transition, in nanoseconds: more than tcpshift waits
// for a reset.
const settled = 1e9

// sweep removes the connections that have ended without a connection record, and reports whether there were any. It
// looks for them only once so many may have ended that its cost does not count.
func (ls *lives) sweep(now recording.Time) bool {
	if ls.maybeEnded < ls.limit/8 {
		return false
	}
	ls.maybeEnded = 0
	for key, l := range ls.open {
		if l.ended && l.last < now-settled {
			ls.picked[endIndex("")].offer(l)
			delete(ls.open, key)
		}
	}
	return len(ls.open) < ls.limit
}

// forgetOpen removes open connections without a record during the whole of a sliding axis, because their ends may be
// lost. It reports whether there were any. It looks for them once a minute.
func (ls *lives) forgetOpen(now recording.Time) bool {
	if !ls.live || now-ls.forgotAt < recording.Time(time.Minute) && now >= ls.forgotAt {
		return false
	}
	ls.forgotAt = now
	for key, l := range ls.open {
		if l.last < now-slidingLength {
			ls.untracked++
			delete(ls.open, key)
		}
	}
	return len(ls.open) < ls.limit
}

// forget removes connections that ended before a time.
func (ls *lives) forget(before recording.Time) {
	for i := range ls.picked {
		p := &ls.picked[i]
		p.lives = slices.DeleteFunc(p.lives, func(l *life) bool { return l.last < before })
		heap.Init(p)
	}
}

func (ls *lives) transition(s *stream, rec *recording.Record) {
	if rec.Role == "listener" || rec.NewState == "LISTEN" || rec.OldState == timeWait {
		return
	}
	l, _ := ls.find(s, rec)
	if l == nil {
		return
	}
	if l.ended { // its connection record was lost, and the socket was used again
		*l = life{first: rec.Time}
	}
	l.identify(rec)
	l.state = known(rec.NewState)
	l.last = rec.Time
	if len(l.steps) < maxSteps {
		l.steps = append(l.steps, step{rec.Time, known(rec.OldState), l.state})
	} else {
		l.stepsMore++
	}
	if stateIndex(l.state) < 0 || l.state == timeWait {
		l.ended = true // its connection record follows, if the recording has them
		ls.maybeEnded++
	}
}

func (ls *lives) update(s *stream, rec *recording.Record) {
	if l, _ := ls.find(s, rec); l != nil {
		l.identify(rec)
		l.connection = bounded(rec.Connection)
		l.state = known(rec.State)
		l.last = rec.Time
		l.first = cmp.Or(rec.Opened, l.first)
	}
}

func (ls *lives) end(s *stream, rec *recording.Record) {
	if rec.Role == "listener" {
		return
	}
	l, key := ls.find(s, rec)
	if l == nil {
		ls.untracked++
		l = &life{first: rec.Time}
	}
	delete(ls.open, key)
	l.identify(rec)
	l.connection = bounded(rec.Connection)
	l.state = known(rec.FinalState)
	l.last = rec.Time
	l.first = cmp.Or(rec.Opened, l.first)
	l.ended = true
	ls.picked[endIndex(rec.ClosedBy)].offer(l)
}

// identify takes what a record says of the socket and its owner. What is known stays known.
func (l *life) identify(rec *recording.Record) {
	s := &l.socket
	s.Netns, s.Conn = rec.Netns, cut(rec.Conn, 16)
	s.LocalAddr, s.LocalPort = cmp.Or(rec.LocalAddr, s.LocalAddr), cmp.Or(rec.LocalPort, s.LocalPort)
	s.PeerAddr, s.PeerPort = cmp.Or(rec.PeerAddr, s.PeerAddr), cmp.Or(rec.PeerPort, s.PeerPort)
	s.Role, s.Error = cmp.Or(rec.Role, s.Role), cmp.Or(rec.Error, s.Error)
	s.LocalAddr, s.PeerAddr, s.Role, s.Error = cut(s.LocalAddr, 64), cut(s.PeerAddr, 64), cut(s.Role, 16), cut(s.Error, 32)
	if rec.PID != 0 {
		l.owner = recording.Owner{PID: rec.PID, Comm: cut(rec.Comm, 64), Cgroup: cut(rec.Cgroup, 256)}
	}
	if rec.Type == "connection" || l.service == "" {
		l.service = serviceOf(rec)
	}
}

// bounded cuts the names of a connection record that are longer than any that tcpshift writes.
func bounded(c recording.Connection) recording.Connection {
	c.Phase, c.State, c.FinalState = "", "", "" // the life has the state
	c.ClosedBy, c.ResetReason = cut(c.ClosedBy, 32), cut(c.ResetReason, 64)
	return c
}

// known returns a state as one of the names that are known, or a name that is short.
func known(state string) string {
	if at := stateIndex(state); at >= 0 {
		return states[at] // does not keep the line
	}
	return cut(state, 16)
}

// pickOpen adds the connections that are still open to those that the page has.
func (ls *lives) pickOpen() {
	for _, l := range ls.open {
		if l.ended { // there are no connection records
			ls.picked[endIndex("")].offer(l)
		} else {
			ls.picked[openClass].offer(l)
		}
	}
}

// compareInterest orders connections: those with the most retransmits first, then those in CLOSE_WAIT, the longest, and those
// with the most bytes.
func (l *life) compareInterest(o *life) int {
	inCloseWait := func(l *life) int {
		if l.state == "CLOSE_WAIT" {
			return 1
		}
		return 0
	}
	bytes := func(l *life) uint64 { return l.connection.Sent + l.connection.Received }
	return cmp.Or(cmp.Compare(l.connection.Retransmits, o.connection.Retransmits),
		cmp.Compare(inCloseWait(l), inCloseWait(o)),
		cmp.Compare(l.last-l.first, o.last-o.first), cmp.Compare(bytes(l), bytes(o)),
		cmp.Compare(o.first, l.first), cmp.Compare(o.socket.Conn, l.socket.Conn))
}

// picks are the most interesting connections of one kind: a heap, the least interesting first.
type picks struct {
	lives []*life
	total uint64
}

func (p *picks) offer(l *life) {
	p.total++
	if len(p.lives) < maxPicked {
		heap.Push(p, l)
		return
	}
	if p.lives[0].compareInterest(l) < 0 {
		p.lives[0] = l
		heap.Fix(p, 0)
	}
}

// sorted returns the connections, the most interesting first.
func (p *picks) sorted() []*life {
	all := slices.Clone(p.lives)
	slices.SortFunc(all, func(a, b *life) int { return b.compareInterest(a) })
	return all
}

// Len implements [heap.Interface].
func (p *picks) Len() int { return len(p.lives) }

// Less implements [heap.Interface].
func (p *picks) Less(i, j int) bool { return p.lives[i].compareInterest(p.lives[j]) < 0 }

// Swap implements [heap.Interface].
func (p *picks) Swap(i, j int) { p.lives[i], p.lives[j] = p.lives[j], p.lives[i] }

// Push implements [heap.Interface].
func (p *picks) Push(x any) { p.lives = append(p.lives, x.(*life)) }

// Pop implements [heap.Interface]. Nothing is taken from picks.
func (p *picks) Pop() any { panic("picks only grow") }
