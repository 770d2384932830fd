package monitor

import (
	"cmp"
	"slices"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/detect/topk"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// maxCensus bounds the groups of sockets of one count. What does not fit is counted by namespace and state.
const maxCensus = 1 << 16

// census is one count of all sockets, in bounded memory. A user who has more groups than fit leaves those of
// others room: see [topk.User].
type census struct {
	groups *topk.Table[censusKey, struct{}]
	others map[censusKey]uint64 // by netns and state
}

type censusKey struct {
	netns uint32
	owner tcp.SocketOwner
}

func newCensus() *census {
	c := &census{groups: topk.New[censusKey, struct{}](maxCensus), others: make(map[censusKey]uint64)}
	c.groups.OnEvict(func(e *topk.Entry[censusKey, struct{}]) {
		c.others[censusKey{e.Key.netns, tcp.SocketOwner{State: e.Key.owner.State}}] += e.Weight
	})
	return c
}

func (c *census) add(netns uint32, owner tcp.SocketOwner, count uint64) {
	hash := uint64(netns) ^ uint64(owner.State)<<32 ^ owner.CgroupID<<40
	c.groups.Add(c.groups.GetOrInsert(censusKey{netns, owner}, hash, detect.UserOfSockets(&owner)), count)
}

// answer returns what was counted.
func (c *census) answer(at time.Time) *tcp.SocketCensus {
	byNetns := make(map[uint32][]tcp.OwnerSockets)
	for _, e := range c.groups.Entries() {
		byNetns[e.Key.netns] = append(byNetns[e.Key.netns], tcp.OwnerSockets{SocketOwner: e.Key.owner, Count: e.Weight})
	}
	for key, count := range c.others {
		byNetns[key.netns] = append(byNetns[key.netns], tcp.OwnerSockets{SocketOwner: key.owner, Other: true, Count: count})
	}
	answer := &tcp.SocketCensus{At: at}
	for netns, groups := range byNetns {
		answer.Namespaces = append(answer.Namespaces, tcp.NetnsSockets{Netns: netns, Groups: groups})
	}
	slices.SortFunc(answer.Namespaces, func(a, b tcp.NetnsSockets) int { return cmp.Compare(a.Netns, b.Netns) })
	return answer
}
