package cli_test

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// filterCase is a command line, the sockets that it passes, and the condition for their
// transitions.
type filterCase struct {
	args  []string
	ends  []string
	match func(r *record) bool
}

func client(of ...connection) []string   { return each("client", of) }
func server(of ...connection) []string   { return each("server", of) }
func listener(of ...connection) []string { return each("listener", of) }
func whole(of ...connection) []string {
	return slices.Concat(client(of...), server(of...), listener(of...))
}

func each(end string, of []connection) []string {
	var names []string
	for _, c := range of {
		names = append(names, c.name+" "+end)
	}
	return names
}

func localPort(ports ...uint16) func(*record) bool {
	return func(r *record) bool { return slices.Contains(ports, r.LocalPort) }
}

func peerPort(ports ...uint16) func(*record) bool {
	return func(r *record) bool { return slices.Contains(ports, r.PeerPort) }
}

func localAddr(prefix string) func(*record) bool {
	return func(r *record) bool { return contains(prefix, r.LocalAddr) }
}

func peerAddr(prefix string) func(*record) bool {
	return func(r *record) bool { return contains(prefix, r.PeerAddr) }
}

// contains is false for an address that the kernel does not have yet.
func contains(prefix, addr string) bool {
	a, err := netip.ParseAddr(addr)
	return err == nil && netip.MustParsePrefix(prefix).Contains(a)
}

func either(a, b func(*record) bool) func(*record) bool {
	return func(r *record) bool { return a(r) || b(r) }
}

func port(ports ...uint16) func(*record) bool { return either(localPort(ports...), peerPort(ports...)) }
func addr(prefix string) func(*record) bool   { return either(localAddr(prefix), peerAddr(prefix)) }

func oldState(states ...string) func(*record) bool {
	return func(r *record) bool { return slices.Contains(states, r.OldState) }
}

func newState(states ...string) func(*record) bool {
	return func(r *record) bool { return slices.Contains(states, r.NewState) }
}

func role(roles ...string) func(*record) bool {
	return func(r *record) bool { return slices.Contains(roles, r.Role) }
}

func family(name string) func(*record) bool {
	return func(r *record) bool { return r.Family == name }
}

func both(a, b func(*record) bool) func(*record) bool {
	return func(r *record) bool { return a(r) && b(r) }
}

func not(a func(*record) bool) func(*record) bool {
	return func(r *record) bool { return !a(r) }
}

var everything = []connection{plain, crossed, ipv6, mapped, private, foreign, elsewhere}

var filterCases = []filterCase{
	{flags("--port", "17001"), whole(plain, elsewhere), port(17001)},
	{flags("--port", "17001,18002"), slices.Concat(whole(plain, elsewhere), client(crossed), server(crossed)),
		port(17001, 18002)},
	{flags("--port", "17002", "--port", "17003"), whole(crossed, ipv6), port(17002, 17003)},
	{flags("--port", "17002-17004"), whole(crossed, ipv6, mapped), port(17002, 17003, 17004)},
	{flags("--port", "17002-17003,17005"), whole(crossed, ipv6, private), port(17002, 17003, 17005)},
	{flags("--port", "1-17001"), whole(plain, elsewhere), port(17001)},
	{flags("--local-port", "17001"), slices.Concat(server(plain, elsewhere), listener(plain, elsewhere)), localPort(17001)},
	{flags("--local-port", "18002-18003"), client(crossed, ipv6), localPort(18002, 18003)},
	{flags("--peer-port", "17002,17004"), client(crossed, mapped), peerPort(17002, 17004)},
	{flags("--peer-port", "18005"), server(private), peerPort(18005)},
	{flags("--local-port", "18001-18006", "--peer-port", "17005"), client(private), both(localPort(18005), peerPort(17005))},

	{flags("--addr", "127.0.0.2"), slices.Concat(client(crossed), server(crossed)), addr("127.0.0.2/32")},
	{flags("--addr", "127.0.0.2/31"), whole(crossed), addr("127.0.0.2/31")},
	{flags("--addr", "127.0.0.0/30"), whole(plain, crossed, foreign, elsewhere), addr("127.0.0.0/30")},
	{flags("--addr", "0.0.0.0/0"), whole(plain, crossed, mapped, foreign, elsewhere), addr("0.0.0.0/0")},
	{flags("--addr", "127.0.0.4"), whole(mapped), addr("127.0.0.4/32")},
	{flags("--addr", "::ffff:127.0.0.4"), whole(mapped), addr("127.0.0.4/32")},
	{flags("--addr", "::1"), whole(ipv6), addr("::1/128")},
	{flags("--addr", "::/0"), whole(ipv6, private), addr("::/0")},
	{flags("--addr", "fd00:1::/32"), slices.Concat(client(private), server(private)), addr("fd00:1::/32")},
	{flags("--addr", "fd00::/15,127.0.0.3"), whole(private, crossed), either(addr("fd00::/15"), addr("127.0.0.3/32"))},
	{flags("--local-addr", "127.0.0.3"), slices.Concat(server(crossed), listener(crossed)), localAddr("127.0.0.3/32")},
	{flags("--local-addr", "fd00:1::/64"), client(private), localAddr("fd00:1::/64")},
	{flags("--peer-addr", "127.0.0.3"), client(crossed), peerAddr("127.0.0.3/32")},
	{flags("--peer-addr", "fd00:1::1"), server(private), peerAddr("fd00:1::1/128")},

	{flags("--family", "4"), whole(plain, crossed, mapped, foreign, elsewhere), family("ipv4")},
	{flags("--family", "6"), whole(ipv6, private), family("ipv6")},

	{flags("--old-state", "LISTEN"), slices.Concat(server(everything...), listener(everything...)), oldState("LISTEN")},
	{flags("--old-state", "SYN_SENT,LAST_ACK"), slices.Concat(client(everything...), server(everything...)),
		oldState("SYN_SENT", "LAST_ACK")},
	{flags("--new-state", "SYN_SENT"), client(everything...), newState("SYN_SENT")},
	{flags("--new-state", "ESTABLISHED,LISTEN"), whole(everything...), newState("ESTABLISHED", "LISTEN")},
	{flags("--old-state", "SYN_RECV", "--new-state", "ESTABLISHED"), server(everything...),
		both(oldState("SYN_RECV"), newState("ESTABLISHED"))},
	{flags("--role", "client"), client(everything...), role("client")},
	{flags("--role", "server"), server(everything...), role("server")},
	{flags("--role", "listener"), listener(everything...), role("listener")},
	{flags("--role", "client,listener"), slices.Concat(client(everything...), listener(everything...)),
		role("client", "listener")},

	{flags("--not-port", "17001,18002"), slices.Concat(whole(ipv6, mapped, private, foreign), listener(crossed)), not(port(17001, 18002))},
	{flags("--not-local-port", "17001-17003"), slices.Concat(client(everything...), server(mapped, private, foreign),
		listener(mapped, private, foreign)), not(localPort(17001, 17002, 17003))},
	{flags("--not-peer-port", "17001-17004"), slices.Concat(client(private, foreign), server(everything...), listener(everything...)),
		not(peerPort(17001, 17002, 17003, 17004))},
	{flags("--not-addr", "127.0.0.0/8"), whole(ipv6, private), not(addr("127.0.0.0/8"))},
	{flags("--not-addr", "::/0", "--not-addr", "127.0.0.4"), whole(plain, crossed, foreign, elsewhere),
		not(either(addr("::/0"), addr("127.0.0.4/32")))},
	{flags("--not-local-addr", "127.0.0.3,fd00:2::1"), slices.Concat(client(everything...),
		server(plain, ipv6, mapped, foreign, elsewhere), listener(plain, ipv6, mapped, foreign, elsewhere)),
		not(either(localAddr("127.0.0.3/32"), localAddr("fd00:2::1/128")))},
	{flags("--not-peer-addr", "0.0.0.0/0"), slices.Concat(whole(ipv6, private), listener(plain, crossed, mapped, foreign, elsewhere)),
		not(peerAddr("0.0.0.0/0"))},
	{flags("--port", "17001-17003", "--not-addr", "127.0.0.1"), whole(crossed, ipv6), both(port(17001, 17002, 17003), not(addr("127.0.0.1/32")))},
	{flags("--uid", "root"), whole(everything...), func(*record) bool { return true }},
	{flags("--uid", "1,2"), nil, func(*record) bool { return false }},
	{flags("--not-uid", "0"), nil, func(*record) bool { return false }},

	{flags("--port", "17001-17003", "--family", "6"), whole(ipv6), both(port(17003), family("ipv6"))},
	{flags("--role", "client", "--new-state", "ESTABLISHED"), client(everything...),
		both(role("client"), newState("ESTABLISHED"))},
	{flags("--port", "17001", "--addr", "::1"), nil, both(port(17001), addr("::1/128"))},
	{flags("--port", "17001", "--family", "6"), nil, both(port(17001), family("ipv6"))},
}

// Each filter passes the transitions that it names, and no others, in the kernel and in a replay of a
// recording without filters. Tracers with different filters see the same traffic: to start one takes
// longer than the traffic.
func TestFilter_Flags(t *testing.T) {
	requireRoot(t)
	const atOnce = 8
	for cases := range slices.Chunk(filterCases, atOnce) {
		s := newTraffic(t)
		of, filtered := s.record(cases...)
		for i, c := range cases {
			t.Run(strings.Join(c.args, " "), func(t *testing.T) {
				s.mustPass(t, c, filtered[i], of.whole)
				of.mustReplay(t, c.args, filtered[i])
			})
		}
	}
}

// --netns takes an inode, a path or pid:N, and passes these namespaces only.
func TestFilter_Netns(t *testing.T) {
	byPort := flags("--port", "17001-17006,18001-18006")
	inside := whole(plain, crossed, ipv6, mapped, private, foreign)
	for name, word := range map[string]func(*traffic) string{
		"inode": func(s *traffic) string { return strconv.FormatUint(uint64(s.n.Inode()), 10) },
		"path":  func(s *traffic) string { return fmt.Sprintf("/proc/%d/ns/net", s.peer.pid()) },
		"pid":   func(s *traffic) string { return fmt.Sprintf("pid:%d", s.peer.pid()) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newTraffic(t)
			in := func(r *record) bool { return r.Netns == s.n.Inode() }
			got := s.compare(filterCase{flags("--netns", word(s)), inside, in}, byPort)
			for _, r := range got.of("transition") {
				if !in(&r) {
					t.Errorf("a transition of another namespace: %s\n%v", r.line, got.result)
				}
			}
		})
	}
	t.Run("two inodes", func(t *testing.T) {
		s := newTraffic(t)
		all := func(*record) bool { return true }
		s.compare(filterCase{flags("--netns", fmt.Sprintf("%d,%d", s.n.Inode(), s.other.Inode())), whole(everything...), all}, byPort)
	})
	t.Run("not this one", func(t *testing.T) {
		s := newTraffic(t)
		s.check(filterCase{flags("--not-netns", fmt.Sprintf("pid:%d", s.peer.pid())), whole(elsewhere),
			func(r *record) bool { return r.Netns == s.other.Inode() }})
	})
	t.Run("and a port", func(t *testing.T) {
		s := newTraffic(t)
		there := func(r *record) bool { return r.Netns == s.other.Inode() }
		s.compare(filterCase{flags("--netns", fmt.Sprint(s.other.Inode()), "--local-port", "18001"), client(elsewhere),
			both(there, localPort(18001))}, byPort)
	})
}

// --pid and --comm pass only the records of a matching owner, also in a replay.
func TestFilter_Owners(t *testing.T) {
	ours := slices.DeleteFunc(whole(everything...), func(end string) bool { return end == "foreign client" })
	pid := func(pid int) func(*record) bool { return func(r *record) bool { return r.PID == uint32(pid) } }
	s := newTraffic(t)
	theirs, none := pid(s.peer.pid()), func(*record) bool { return false }
	ofOthers := func(r *record) bool { return !theirs(r) }
	names := []string{"pid", "another pid", "comm", "comm, a prefix of it", "several comms", "pid and state", "not pid", "not comm"}
	cases := []filterCase{
		{flags("--pid", fmt.Sprint(s.peer.pid())), client(foreign), theirs},
		{flags("--pid", fmt.Sprint(os.Getpid())), ours, pid(os.Getpid())},
		{flags("--comm", peerComm), client(foreign), theirs},
		{flags("--comm", peerComm[:8]), nil, none},
		{flags("--comm", "no-such-name", "--comm", peerComm), client(foreign), theirs},
		{flags("--pid", fmt.Sprint(s.peer.pid()), "--new-state", "SYN_SENT"), client(foreign), both(theirs, newState("SYN_SENT"))},
		{flags("--not-pid", fmt.Sprint(s.peer.pid())), ours, ofOthers},
		{flags("--not-comm", peerComm, "--not-comm", "no-such-name"), ours, ofOthers},
	}
	of, filtered := s.record(cases...)
	for i, c := range cases {
		t.Run(names[i], func(t *testing.T) {
			s.mustPass(t, c, filtered[i], of.whole)
			of.mustReplay(t, c.args, filtered[i])
		})
	}
	t.Run("comms that a list would take apart", func(t *testing.T) {
		for _, comm := range []string{"a,b", " a ", "a, b ,", ",", "a\nb\x80\x1b"} {
			s := newTrafficWith(t, comm)
			s.check(filterCase{flags("--comm", comm), client(foreign), pid(s.peer.pid())})
		}
	})
	t.Run("parts of a comm", func(t *testing.T) {
		s := newTrafficWith(t, "a,b")
		s.check(filterCase{flags("--comm", "a", "--comm", "b", "--comm", " a,b"), nil, none})
	})
}

// --cgroup passes one cgroup and the cgroups below it.
func TestFilter_Cgroup(t *testing.T) {
	requireRoot(t)
	mount := cgroupMount(t)
	for _, row := range []struct {
		name, processIn string
		path            func(dir string) string
	}{
		{"the cgroup of the process", "", func(dir string) string { return dir }},
		{"the one above it", "below", func(dir string) string { return dir }},
		{"its path below the mount", "", func(dir string) string { return strings.TrimPrefix(dir, mount) }},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir, adjust := newCgroup(t, mount, row.processIn)
			s := newTraffic(t, adjust)
			s.check(filterCase{flags("--cgroup", row.path(dir)), client(foreign), localPort(foreign.from.Port())})
		})
	}
	t.Run("not this one", func(t *testing.T) {
		dir, adjust := newCgroup(t, mount, "")
		ours := slices.DeleteFunc(whole(everything...), func(end string) bool { return end == "foreign client" })
		newTraffic(t, adjust).check(filterCase{flags("--not-cgroup", dir), ours, not(localPort(foreign.from.Port()))})
	})
	t.Run("another cgroup", func(t *testing.T) {
		dir, _ := newCgroup(t, mount, "")
		newTraffic(t).check(filterCase{flags("--cgroup", dir), nil, func(*record) bool { return false }})
	})
}

// check compares a stream with the filter to a stream without it.
func (s *traffic) check(c filterCase) {
	s.t.Helper()
	whole, filtered := s.traceNetns(c)
	s.mustPass(s.t, c, filtered[0], whole)
}

// traceNetns is trace with tracers that also filter by namespace, to leave out the rest of
// the host.
func (s *traffic) traceNetns(cases ...filterCase) (whole []transition, filtered []stream) {
	s.t.Helper()
	return s.trace(s.byNetns(), s.inside(cases)...)
}

// inside returns the cases with a filter by namespace as well.
func (s *traffic) inside(cases []filterCase) []filterCase {
	inside := slices.Clone(cases)
	for i, c := range cases {
		inside[i].args = slices.Concat(c.args, s.byNetns())
	}
	return inside
}

// compare compares a stream with the filter to a reference.
func (s *traffic) compare(c filterCase, reference []string) stream {
	s.t.Helper()
	whole, filtered := s.trace(reference, c)
	s.mustPass(s.t, c, filtered[0], whole)
	return filtered[0]
}

// trace makes the traffic once beside a tracer for the reference and one for each case. It
// returns the transitions of the reference, and the stream of each case.
func (s *traffic) trace(reference []string, cases ...filterCase) (whole []transition, filtered []stream) {
	s.t.Helper()
	filtered = s.streams(reference, cases...)
	return s.transitions(filtered[0]), filtered[1:]
}

// streams is trace, and returns the stream of the reference before those of the cases.
func (s *traffic) streams(reference []string, cases ...filterCase) (all []stream) {
	s.t.Helper()
	tracers := []*tracer{launch(s.t, append(flags("--stats-interval", "0"), reference...))}
	for _, c := range cases {
		tracers = append(tracers, launch(s.t, append(flags("--stats-interval", "0"), c.args...)))
	}
	for _, tr := range tracers {
		tr.awaitStart()
	}
	s.makeConnections()
	for _, tr := range tracers {
		tr.signal(syscall.SIGTERM)
	}
	for _, tr := range tracers {
		all = append(all, tr.end("signal"))
	}
	return all
}

// mustPass checks that got has those transitions of all that the case passes.
func (s *traffic) mustPass(t testing.TB, c filterCase, got stream, all []transition) {
	t.Helper()
	want := slices.DeleteFunc(slices.Clone(all), func(t transition) bool { return !c.match(&t.record) })
	if g, w := lines(s.transitions(got)), lines(want); g != w {
		t.Errorf("got transitions:\n%s\nwant:\n%s\n%v", g, w, got.result)
	}
	if g, w := ends(s.transitions(got)), slices.Sorted(slices.Values(c.ends)); !slices.Equal(g, w) {
		t.Errorf("got sockets:  %q\nwant: %q\n%v", g, w, got.result)
	}
	if stop, out := got.last(), len(all)-len(want); stop.Filtered < uint64(out) {
		t.Errorf("stop counts %d filtered, want %d\n%v", stop.Filtered, out, got.result)
	}
}
