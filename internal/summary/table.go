package summary

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/tcpshift/tcpshift/internal/detect/topk"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// maxRows bounds the rows of a table with an owner and a peer of their own. The rows of fewer connections are merged
// into those of Row.Other.
const maxRows = 1000

// Table sums up connections by owner, role and peer, in bounded memory. It is for one goroutine.
type Table struct {
	rows   *topk.Table[key, *cell]
	others map[tcp.Role]*cell
}

// key has what a row names. Two rows of a window look alike only if cgroups have the same path, such as those of a
// service before and after its restart, or no known one.
type key struct {
	role       tcp.Role
	ownerKnown bool // false: comm and cgroupID are zero
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

// NewTable returns an empty table.
func NewTable() *Table {
	t := &Table{rows: topk.New[key, *cell](maxRows), others: make(map[tcp.Role]*cell)}
	t.rows.OnEvict(func(e *topk.Entry[key, *cell]) { t.other(e.Key.role).merge(e.Value) })
	return t
}

// Add counts a connection. It may keep last.Cgroup, which never changes, and keeps nothing else of the values.
func (t *Table) Add(last *tcp.Transition, c *tcp.Connection) {
	k := keyOf(last)
	e := t.rows.GetOrInsert(k, k.hash(), userOf(last))
	if e.Value == nil {
		e.Value = new(cell)
	}
	t.rows.Add(e, 1)
	e.Value.add(last, c)
}

func (t *Table) other(role tcp.Role) *cell {
	c := t.others[role]
	if c == nil {
		c = new(cell)
		t.others[role] = c
	}
	return c
}

func keyOf(last *tcp.Transition) key {
	k := key{role: last.Role}
	if last.Owner.Source != tcp.PIDUnknown {
		k.ownerKnown, k.comm, k.cgroupID = true, last.Owner.Comm, last.CgroupID
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
	c.Add(last, conn)
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
	c.Merge(&o.Totals)
	c.duration.merge(&o.duration)
	c.rtt.merge(&o.rtt)
}

// Rows returns the rows: by role, those of most connections first, and the other connections of the role last. Their
// Start and End are zero.
func (t *Table) Rows() []Row {
	rows := make([]Row, 0, t.rows.Len()+len(t.others))
	for _, e := range t.rows.Entries() {
		r := e.Value.row()
		r.Role, r.Peer, r.Port = e.Key.role, e.Key.peer, e.Key.port
		r.nameOwner(&e.Key, e.Value.cgroup)
		rows = append(rows, r)
	}
	for role, c := range t.others {
		r := c.row()
		r.Role, r.Other = role, true
		rows = append(rows, r)
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
	r.CgroupID = k.cgroupID
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
