package record

import (
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// stormTransitions are the transitions of short connections from one process, of both
// ends, as in a storm over loopback: ten per connection.
func stormTransitions(connections int) []tcp.Transition {
	cgroup := &tcp.Cgroup{Path: "/system.slice/storm.service"}
	var all []tcp.Transition
	for n := range connections {
		for i, step := range []struct {
			role     tcp.Role
			from, to tcp.State
		}{
			{tcp.RoleClient, tcp.Close, tcp.SynSent},
			{tcp.RoleServer, tcp.Listen, tcp.SynRecv},
			{tcp.RoleServer, tcp.SynRecv, tcp.Established},
			{tcp.RoleClient, tcp.SynSent, tcp.Established},
			{tcp.RoleClient, tcp.Established, tcp.FinWait1},
			{tcp.RoleServer, tcp.Established, tcp.CloseWait},
			{tcp.RoleClient, tcp.FinWait1, tcp.FinWait2},
			{tcp.RoleServer, tcp.CloseWait, tcp.LastAck},
			{tcp.RoleClient, tcp.FinWait2, tcp.TimeWait},
			{tcp.RoleServer, tcp.LastAck, tcp.Close},
		} {
			loopback := netip.AddrFrom4([4]byte{127, 0, 1, byte(1 + n%64)})
			service := tcp.Endpoint{Addr: loopback, Port: 7000}
			client := tcp.Endpoint{Addr: loopback, Port: uint16(32768 + n%28000)}
			t := tcp.Transition{
				Time: moment.Add(time.Duration(10*n+i) * 1500 * time.Nanosecond), Cookie: uint64(0x2b0000 + 2*n + i%2),
				Netns: 4026531840, UID: 1000, Owner: task(4242, "storm"), Cgroup: cgroup, Role: step.role, Old: step.from,
				New: step.to, InState: time.Duration(57_174 + n),
			}
			t.Cookie, t.Local, t.Peer = 2*uint64(n)+0x2b0001, service, client
			if step.role == tcp.RoleClient {
				t.Cookie, t.Local, t.Peer = t.Cookie-1, client, service
			}
			if step.to == tcp.SynSent {
				t.Local.Port, t.InState = 0, 0
			}
			all = append(all, t)
		}
	}
	return all
}

// stormNumbers appends the numbers that are encoded for a transition of a storm, and with
// the last one of a socket those of its connection record.
func (o object) stormNumbers(t *tcp.Transition, number, nineDigits func(dst []byte, v uint64) []byte) object {
	nanosecond := uint64(t.Time.Nanosecond())
	line := number(nineDigits(o.line, nanosecond), t.Cookie) // time, seq
	if t.InState != 0 {
		line = number(line, uint64(t.InState))
	}
	if t.Old == tcp.Close || t.Old == tcp.Listen || t.Old == tcp.SynSent { // an identity that is not in the cache
		line = number(number(number(line, uint64(t.Netns)), uint64(t.Local.Port)), uint64(t.Peer.Port))
	}
	if t.New == tcp.TimeWait || t.New == tcp.Close {
		line = number(nineDigits(nineDigits(line, nanosecond), nanosecond), t.Cookie)   // time, opened, seq
		line = number(number(line, 20*uint64(t.InState)), 17*uint64(t.InState))         // duration_ns, established_ns
		line = number(number(number(number(line, 120), 4_000), 0), uint64(t.InState)/3) // bytes, retransmits, rtt_ns
	}
	o.line = line
	return o
}

// BenchmarkFastPath compares each optimization of the native encoder with the plain code
// that it replaces. An operation is what one transition of a storm needs of it, so that
// the difference is the time that a transition would take longer without it. An
// optimization is kept if that is at least 5 % of the user CPU time of tcpshift itself per
// transition in a storm, which is 0.5 to 0.7 µs (docs/performance.md).
func BenchmarkFastPath(b *testing.B) {
	transitions := stormTransitions(4096)
	var times timeCache
	var identities identityCache
	var owners ownerCache
	for _, path := range []struct {
		name        string
		plain, fast func(o object, t *tcp.Transition) object
	}{
		{
			"time",
			func(o object, t *tcp.Transition) object { return object{timeByLibrary(o.line, t.Time)} },
			func(o object, t *tcp.Transition) object { return object{times.append(o.line, t.Time)} },
		},
		{"identity", object.identity, identities.append},
		{"owner", object.owner, func(o object, t *tcp.Transition) object { return owners.append(o, t, object.owner) }},
		{
			"digits",
			func(o object, t *tcp.Transition) object {
				return o.stormNumbers(t, func(dst []byte, v uint64) []byte { return strconv.AppendUint(dst, v, 10) },
					func(dst []byte, v uint64) []byte { return strconv.AppendUint(dst, 1_000_000_000+v, 10) })
			},
			func(o object, t *tcp.Transition) object { return o.stormNumbers(t, appendUint, appendNineDigits) },
		},
	} {
		for _, way := range []struct {
			name   string
			append func(o object, t *tcp.Transition) object
		}{{"plain", path.plain}, {"fast", path.fast}} {
			b.Run(path.name+"/"+way.name, func(b *testing.B) {
				b.ReportAllocs()
				o := object{make([]byte, 0, MaxLine)}
				for n := 0; b.Loop(); n++ {
					o.line = o.line[:0]
					o = way.append(o, &transitions[n%len(transitions)])
				}
			})
		}
	}
}
