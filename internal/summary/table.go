package summary

import (
	"cmp"
	"encoding/binary"
	"hash/maphash"
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

// key has what a row names, so that no two rows of a window look alike, unless the paths of their cgroups are not
// known. A cgroup is its path: that of a service has another id after its restart.
type key struct {
	role       tcp.Role
	ownerKnown bool // false: comm and the cgroup are zero
	comm       tcp.Comm
	cgroup     string // path; "": not known
	cgroupID   uint64 // 0 if the path is known
	peer       netip.Addr
	port       uint16
}

type cell struct {
	Totals
	duration, rtt distribution
	cgroup        *tcp.Cgroup // the newest that is known
	cgroupID      uint64      // the newest
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
	cgroup := k.cgroupID
	if k.cgroup != "" {
		cgroup = maphash.String(seed, k.cgroup)
	}
	// No user, and no service of a user, takes the room of another.
	user := topk.User{Quota: topk.QuotaOf(last.UID), Part: cgroup}
	e := t.rows.GetOrInsert(k, k.hash(cgroup), user)
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
		k.ownerKnown, k.comm = true, last.Owner.Comm
		if last.Cgroup != nil {
			k.cgroup = last.Cgroup.Path
		} else {
			k.cgroupID = last.CgroupID
		}
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

var seed = maphash.MakeSeed()

// hash takes a number that is a function of the key's cgroup.
func (k *key) hash(cgroup uint64) uint64 {
	b := k.peer.As16()
	return binary.NativeEndian.Uint64(b[8:]) ^ binary.NativeEndian.Uint64(b[:8])*31 ^ uint64(k.port)<<16 ^ cgroup<<32 ^ uint64(k.role)
}

func (c *cell) add(last *tcp.Transition, conn *tcp.Connection) {
	c.Add(last, conn)
	if conn.OpenedAt != 0 {
		c.duration.add(last.Monotonic - conn.OpenedAt)
	}
	if conn.RTT != 0 {
		c.rtt.add(conn.RTT)
	}
	if c.cgroupID = last.CgroupID; last.Cgroup != nil {
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
		r.nameOwner(&e.Key, e.Value)
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
func (r *Row) nameOwner(k *key, c *cell) {
	if !k.ownerKnown {
		return
	}
	cgroup := c.cgroup
	r.CgroupID = c.cgroupID
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
