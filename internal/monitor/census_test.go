package monitor

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// A user with more groups of sockets than fit leaves those of other users theirs, whether they are counted before or
// after. The sockets beyond are counted by state in their namespace, so every sum is right.
func TestCensus_FloodOfOneUser(t *testing.T) {
	const victim, flooder, subordinates, timeWaits = 4026531833, 4026540000, 4026550000, 4026560000
	c := newCensus()
	service := func(uid uint32, at uint64) tcp.SocketOwner {
		return tcp.SocketOwner{CgroupID: at, Comm: tcp.Comm{'s'}, UID: uid, State: tcp.Established}
	}
	var total uint64
	add := func(netns uint32, owner tcp.SocketOwner, count uint64) {
		total += count
		c.add(netns, owner, count)
	}
	for at := range uint64(500) {
		add(victim, service(0, at), 1)
	}
	const flood = maxCensus + 5000
	for i := range uint32(flood) {
		named := service(1000, 7)
		binary.NativeEndian.PutUint32(named.Comm[4:], i)
		add(flooder, named, 3)
		inCgroup := service(1<<20+i%65536, uint64(i))
		add(subordinates, inCgroup, 3)
		add(timeWaits+i, tcp.SocketOwner{State: tcp.TimeWait}, 1)
	}
	for at := range uint64(500) {
		add(victim, service(33, 1000+at), 1)
		add(victim, service(0, at), 1)
	}
	got := c.answer(time.Now())
	var sum, others uint64
	kept := make(map[tcp.SocketOwner]uint64)
	for _, n := range got.Namespaces {
		var inNetns uint64
		for _, g := range n.Groups {
			inNetns += g.Count
			if g.Other {
				others += g.Count
			} else if n.Netns == victim {
				kept[g.SocketOwner] = g.Count
			}
		}
		if sum += inNetns; n.Netns == flooder && inNetns != 3*flood {
			t.Errorf("%d sockets of the namespace with the flood, want %d", inNetns, 3*flood)
		}
	}
	if sum != total || others == 0 {
		t.Errorf("%d sockets in all, %d of them in no group, want %d in all", sum, others, total)
	}
	for at := range uint64(500) {
		if a, b := kept[service(0, at)], kept[service(33, 1000+at)]; a != 2 || b != 1 {
			t.Fatalf("service %d: %d and %d sockets are counted, want 2 and 1", at, a, b)
		}
	}
}
