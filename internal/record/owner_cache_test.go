package record

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// The cache returns this owner, not another that has its slot or differs in one
// member.
func TestOwnerCache_SameAsUncached(t *testing.T) {
	groups := []*tcp.Cgroup{nil, {Path: "/a"}, {Path: "/b"}, {Path: "/a"}, {}}
	sources := []tcp.PIDSource{tcp.PIDUnknown, tcp.PIDTask, tcp.PIDStored, tcp.PIDListener, tcp.PIDScan}
	random := rand.New(rand.NewPCG(1, 2))
	used, emptied := NewNative(nil), NewNative(nil)
	for range 20_000 {
		event := fullV4()
		event.Owner = task(uint32(random.IntN(4)<<8|random.IntN(3)), fmt.Sprint("comm", random.IntN(2)))
		event.Owner.Source = sources[random.IntN(len(sources))]
		event.UID, event.Cgroup = uint32(random.IntN(2)), groups[random.IntN(len(groups))]
		emptied.owners = ownerCache{}
		got, want := string(used.Transition(nil, &event)), string(emptied.Transition(nil, &event))
		if got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	}
}
