// Package summary sums up the connections that end, by owner, role and peer, in windows of the wall
// clock and in bounded memory. It must not read clocks or the host, nor know how its rows are written.
package summary

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect/topk"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

const (
	// maxRows bounds the rows of a window with an owner and a peer of their own. The rows of fewer connections are
	// merged into those of Row.Other.
	maxRows = 1000
	// lateness is how long after the end of a window its connections are awaited: longer than an event
	// is under way, and than it waits for a reset.
	lateness = 250 * time.Millisecond
	// maxWindows bounds the windows that are open at one time. More than two are open only after the
	// wall clock was set.
	maxWindows = 3
)

// Summary sums up connections. It is for one goroutine.
type Summary struct {
	length  time.Duration
	windows []*window // one at least, by time
}

// window has the connections that end from start to end.
type window struct {
	start, end time.Time
	rows       *topk.Table[key, *cell]
	others     map[tcp.Role]*cell
}

type key struct {
	role       tcp.Role
	ownerKnown bool
	comm       tcp.Comm
	cgroupID   uint64
	peer       netip.Addr
	port       uint16
}

type cell struct {
	Totals
	duration, rtt distribution
	cgroup        *tcp.Cgroup // the newest that is known
}

// New returns a summary whose windows have this length, and whose first window begins now. Each
// window ends when the wall clock, in UTC, is a multiple of length.
func New(length time.Duration, now time.Time) *Summary {
	s := &Summary{length: length}
	s.open(now.Round(0)) // without its monotonic reading: windows go by the wall clock
	return s
}

func (s *Summary) open(start time.Time) *window {
	w := &window{
		start: start, end: start.Truncate(s.length).Add(s.length),
		rows: topk.New[key, *cell](maxRows), others: make(map[tcp.Role]*cell),
	}
	w.rows.OnEvict(func(e *topk.Entry[key, *cell]) { w.other(e.Key.role).merge(e.Value) })
	s.windows = append(s.windows, w)
	return w
}

// Add adds a connection to the window in which it has ended. If that is over, it adds it to the
// oldest one that is open.
func (s *Summary) Add(last *tcp.Transition, c *tcp.Connection) {
	s.windowOf(last.Time).add(last, c)
}

func (s *Summary) windowOf(at time.Time) *window {
	for _, w := range s.windows {
		if at.Before(w.end) {
			return w
		}
	}
	newest := s.windows[len(s.windows)-1]
	if len(s.windows) == maxWindows {
		return newest
	}
	start := at.Truncate(s.length)
	if start.Before(newest.end) {
		start = newest.end
	}
	return s.open(start)
}

func (w *window) add(last *tcp.Transition, c *tcp.Connection) {
	k := keyOf(last)
	e := w.rows.GetOrInsert(k, k.hash(), userOf(last))
	if e.Value == nil {
		e.Value = new(cell)
	}
	w.rows.Add(e, 1)
	e.Value.add(last, c)
}

func (w *window) other(role tcp.Role) *cell {
	c := w.others[role]
	if c == nil {
		c = new(cell)
		w.others[role] = c
	}
	return c
}

func keyOf(last *tcp.Transition) key {
	k := key{role: last.Role, cgroupID: last.CgroupID}
	if last.Owner.Source != tcp.PIDUnknown {
		k.ownerKnown, k.comm = true, last.Owner.Comm
	}
	if k.role != tcp.RoleListener {
		k.peer = last.Peer.Addr
	}
	k.port = last.Peer.Port
	if isService(k.role) {
		k.port = last.Local.Port
	}
	return k
}

func (k *key) hash() uint64 {
	b := k.peer.As16()
	return binary.NativeEndian.Uint64(b[8:]) ^ binary.NativeEndian.Uint64(b[:8])*31 ^ uint64(k.port)<<16 ^ k.cgroupID<<32 ^ uint64(k.role)
}

// userOf is on whose account a row is: no user, and no service of a user, takes the room of another.
func userOf(last *tcp.Transition) topk.User {
	return topk.User{Quota: topk.QuotaOf(last.UID), Part: last.CgroupID}
}

func (c *cell) add(last *tcp.Transition, conn *tcp.Connection) {
	c.Totals.add(last, conn)
	if conn.OpenedAt != 0 {
		c.duration.add(last.Monotonic - conn.OpenedAt)
	}
	if conn.RTT != 0 {
		c.rtt.add(conn.RTT)
	}
	if last.Cgroup != nil {
		c.cgroup = last.Cgroup
	}
}

func (c *cell) merge(o *cell) {
	c.Totals.merge(&o.Totals)
	c.duration.merge(&o.duration)
	c.rtt.merge(&o.rtt)
}

// Due is when Rows may have rows of the oldest window.
func (s *Summary) Due() time.Time { return s.windows[0].end.Add(lateness) }

// Rows returns the rows of the windows that are over. A window without a connection has none.
func (s *Summary) Rows(now time.Time) (rows []Row) {
	now = now.Round(0)
	for len(s.windows) > 0 && s.isOver(s.windows[0], now) {
		w := s.windows[0]
		s.windows = s.windows[1:]
		rows = append(rows, w.close(w.end)...)
		if len(s.windows) == 0 {
			s.open(s.nextStart(w, now))
			break
		}
	}
	return rows
}

// isOver is also true if the wall clock was set back to before the window.
func (s *Summary) isOver(w *window, now time.Time) bool {
	return !now.Before(w.end.Add(lateness)) || now.Before(w.start.Add(-s.length))
}

// nextStart is the start of the window after w. It leaves out windows that are over.
func (s *Summary) nextStart(w *window, now time.Time) time.Time {
	switch current := now.Truncate(s.length); {
	case now.Before(w.end):
		return now
	case current.After(w.end):
		return current
	}
	return w.end
}

// Finish returns the rows of all windows that are open. The last one ends now, and a new one begins.
func (s *Summary) Finish(now time.Time) (rows []Row) {
	now = now.Round(0)
	for _, w := range s.windows {
		end := w.end
		if now.After(w.start) && now.Before(end) {
			end = now
		}
		rows = append(rows, w.close(end)...)
	}
	s.windows = nil
	s.open(now)
	return rows
}

// close returns the rows of the window: by role, those of most connections first, and the other
// connections of the role last.
func (w *window) close(end time.Time) []Row {
	rows := make([]Row, 0, w.rows.Len()+len(w.others))
	for _, e := range w.rows.Entries() {
		r := e.Value.row()
		r.Role, r.Peer, r.Port = e.Key.role, e.Key.peer, e.Key.port
		r.nameOwner(&e.Key, e.Value.cgroup)
		rows = append(rows, r)
	}
	for role, c := range w.others {
		r := c.row()
		r.Role, r.Other = role, true
		rows = append(rows, r)
	}
	for i := range rows {
		rows[i].Start, rows[i].End = w.start, end
	}
	slices.SortFunc(rows, compare)
	return rows
}

func (c *cell) row() Row {
	return Row{Totals: c.Totals, Duration: c.duration.quantiles(), RTT: c.rtt.quantiles()}
}

// nameOwner names the service: what its cgroup is called, else what its main thread is called.
func (r *Row) nameOwner(k *key, cgroup *tcp.Cgroup) {
	if !k.ownerKnown {
		return
	}
	r.OwnerKnown, r.Comm, r.Cgroup = true, k.comm, cgroup
	if cgroup != nil {
		r.Service, r.ServiceClaimed = cgroup.Service(), cgroup.IsServiceClaimed()
	}
	if r.Service == "" {
		r.Service, r.ServiceClaimed = string(k.comm.Bytes()), false
	}
}

func compare(a, b Row) int {
	other := func(r *Row) int {
		if r.Other {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(a.Role, b.Role), cmp.Compare(other(&a), other(&b)), cmp.Compare(b.Connections, a.Connections),
		cmp.Compare(a.Service, b.Service), a.Peer.Compare(b.Peer), cmp.Compare(a.Port, b.Port))
}
