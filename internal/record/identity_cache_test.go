package record

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// The cache returns the identity of this socket, not of another that has its slot or
// differs in one member, and not what this socket was before.
func TestIdentityCache_SameAsUncached(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	ends := []tcp.Endpoint{{}, endpoint("192.0.2.1", 0), endpoint("192.0.2.1", 80), endpoint("::ffff:192.0.2.1", 80), {Port: 80}}
	var used identityCache
	for range 100_000 {
		event := fullV4()
		if random.IntN(2) == 0 {
			event.Cookie = uint64(random.IntN(2)) * uint64(len(used)) << random.IntN(2)
		}
		event.Local, event.Peer = ends[random.IntN(len(ends))], ends[random.IntN(len(ends))]
		event.Netns, event.Role = uint32(random.IntN(2)), tcp.Role(random.IntN(2))
		event.Mapped, event.IPv6 = random.IntN(2) == 0, random.IntN(2) == 0
		want := string(object{}.identity(&event).line)
		if last := string(used.appendLast(object{}, &event).line); last != want {
			t.Fatalf("the last record: got %s, want %s", last, want)
		}
		got := string(used.append(object{}, &event).line)
		if got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	}
}

// An identity that is too long to be kept is encoded in full.
func TestIdentityCache_TooLong(t *testing.T) {
	event := fullV6()
	var used identityCache
	for _, zone := range []string{"", string(make([]byte, 300)), "eth0"} {
		event.Local.Addr = netip.MustParseAddr("fe80::1").WithZone(zone)
		for range 2 {
			got, want := string(used.append(object{}, &event).line), string(object{}.identity(&event).line)
			if got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		}
	}
}
