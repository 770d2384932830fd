package snapshot

import (
	"bytes"
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect/topk"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// CountEncoder encodes counts of sockets; record.Text is one.
type CountEncoder interface {
	// CountHeader appends the header of the format for counts by these keys, if it has one.
	CountHeader(dst []byte, by []tcp.SocketKey) []byte
	// SetSeq sets the number of the next count. The first one is 1.
	SetSeq(seq uint64)
	// SocketCount appends one count as one line.
	SocketCount(dst []byte, c *tcp.SocketCount, by []tcp.SocketKey) []byte
}

// maxGroups bounds the groups that are counted on their own, to about 10 MiB. Where there are more, the
// sockets of those with the fewest count as others.
const maxGroups = 10_000

// counter counts sockets by group.
type counter struct {
	by     []tcp.SocketKey
	groups *topk.Table[tcp.SocketGroup, struct{}]
	others uint64
}

func newCounter(by []tcp.SocketKey) *counter {
	c := &counter{by: by, groups: topk.New[tcp.SocketGroup, struct{}](maxGroups)}
	c.groups.OnEvict(func(e *topk.Entry[tcp.SocketGroup, struct{}]) { c.others += e.Weight })
	return c
}

func (c *counter) add(s *tcp.Socket) {
	group := tcp.GroupOf(s, c.by)
	hash := uint64(group.State) ^ uint64(group.PID)<<8 ^ uint64(group.Peer.Port)<<24 ^ uint64(group.Local.Port)<<40
	c.groups.Add(c.groups.GetOrInsert(group, hash, topk.User{}), 1)
}

// counts returns all counts, the largest first and the others last.
func (c *counter) counts(at time.Time) []tcp.SocketCount {
	all := make([]tcp.SocketCount, 0, c.groups.Len()+1)
	for _, e := range c.groups.Entries() {
		all = append(all, tcp.SocketCount{Time: at, SocketGroup: e.Key, Sockets: e.Weight})
	}
	slices.SortFunc(all, func(a, b tcp.SocketCount) int {
		return cmp.Or(cmp.Compare(b.Sockets, a.Sockets), compareGroups(&a.SocketGroup, &b.SocketGroup))
	})
	if c.others > 0 {
		all = append(all, tcp.SocketCount{Time: at, Other: true, Sockets: c.others})
	}
	return all
}

func compareGroups(a, b *tcp.SocketGroup) int {
	return cmp.Or(
		cmp.Compare(a.State, b.State), cmp.Compare(a.Netns, b.Netns),
		a.Local.Addr.Compare(b.Local.Addr), cmp.Compare(a.Local.Port, b.Local.Port),
		a.Peer.Addr.Compare(b.Peer.Addr), cmp.Compare(a.Peer.Port, b.Peer.Port),
		cmp.Compare(a.PID, b.PID), bytes.Compare(a.Comm[:], b.Comm[:]), cmp.Compare(a.UID, b.UID),
		cmp.Compare(a.Container, b.Container), compareBools(a.ContainerClaimed, b.ContainerClaimed),
		cmp.Compare(a.Pod, b.Pod), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.ContainerName, b.ContainerName),
		cmp.Compare(a.Unit, b.Unit), compareBools(a.UnitClaimed, b.UnitClaimed),
		cmp.Compare(a.Service, b.Service), compareBools(a.ServiceClaimed, b.ServiceClaimed))
}

// compareBools orders false before true.
func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// Count groups the sockets that Take would list by their values of the keys in by, and writes the number of
// sockets in each group, one line a group. After a failure it writes the counts of the sockets that it has
// seen, nothing if there are none, and returns the error.
func Count(which *Sockets, by []tcp.SocketKey, enc CountEncoder, out Writer) error {
	c := newCounter(by)
	s := newSnapshot(which)
	s.counter = c
	err := s.take()
	counts := c.counts(s.now)
	if err != nil && len(counts) == 0 {
		return err
	}
	lines := enc.CountHeader(nil, by)
	for i := range counts {
		enc.SetSeq(uint64(i + 1))
		lines = enc.SocketCount(lines, &counts[i], by)
	}
	if len(lines) == 0 {
		return err
	}
	_, writeErr := out.Write(lines)
	return errors.Join(err, writeErr)
}
