package record

import (
	"testing"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// published are the TCP flows of the specification's own data, baseline/baseline_deflt.json of
// github.com/corelight/community-id-spec, and the one of Zeek's test of community_id_v1.
var published = []struct {
	a, b tcp.Endpoint
	want string
}{
	{
		endpoint("2001:470:e5bf:dead:4957:2174:e82c:4887", 63943), endpoint("2607:f8b0:400c:c03::1a", 25),
		"1:/qFaeAR+gFe1KYjMzVDsMv+wgU4=",
	},
	{endpoint("128.232.110.120", 34855), endpoint("66.35.250.204", 80), "1:LQU9qZlK+B5F3KDmev6m5PMibrg="},
	{endpoint("1.2.3.4", 1122), endpoint("5.6.7.8", 3344), "1:wCb3OG7yAFWelaUydu0D+125CLM="},
}

// The id is the published one, seen from either end.
func TestCommunityID_PublishedFlows(t *testing.T) {
	for _, flow := range published {
		want := `,"id":"` + flow.want + `"`
		if got := string(object{}.communityID("id", flow.a, flow.b).line); got != want {
			t.Errorf("%v to %v: got %s, want %s", flow.a, flow.b, got, want)
		}
		if got := string(object{}.communityID("id", flow.b, flow.a).line); got != want {
			t.Errorf("%v to %v: got %s, want %s", flow.b, flow.a, got, want)
		}
	}
}

// With equal addresses the ports decide, so that both ends of a loopback connection have one id.
func TestCommunityID_EqualAddresses(t *testing.T) {
	for _, addr := range []string{"127.0.0.1", "::1"} {
		a, b := endpoint(addr, 50000), endpoint(addr, 443)
		got, other := string(object{}.communityID("id", a, b).line), string(object{}.communityID("id", b, a).line)
		if got != other || got == "" {
			t.Errorf("%s: got %q and %q, want one id", addr, got, other)
		}
	}
}

// Without both addresses and both ports there is no id.
func TestCommunityID_Incomplete(t *testing.T) {
	whole := endpoint("192.0.2.1", 80)
	for _, part := range []tcp.Endpoint{{}, {Port: 80}, endpoint("192.0.2.1", 0)} {
		for _, ends := range [][2]tcp.Endpoint{{whole, part}, {part, whole}, {part, part}} {
			if got := (object{}).communityID("id", ends[0], ends[1]); got.line != nil {
				t.Errorf("%v to %v: got %s, want nothing", ends[0], ends[1], got.line)
			}
		}
	}
}

// The id is computed without an allocation, because a storm makes many connections.
func TestCommunityID_NoAllocations(t *testing.T) {
	line := make([]byte, 0, 100)
	event := fullV6()
	allocs := testing.AllocsPerRun(1000, func() {
		line = object{line[:0]}.communityID("id", event.Local, event.Peer).line
	})
	if allocs != 0 {
		t.Errorf("%v allocations, want 0", allocs)
	}
}
