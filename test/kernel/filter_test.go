package kernel_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/tcp"
	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/kernelmatrix/expect"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// filterCase is a filter, and which records of an unfiltered tracer it must let
// through.
type filterCase struct {
	name   string
	filter filter.Filter
	wanted func(l harness.Record) bool
}

// One tracer for each filter and one without run beside several processes. Each filter
// lets through the records that the unfiltered tracer has and the filter wants, and no
// others.
func TestFilter_OwnersAndRoles(t *testing.T) {
	env := harness.NewEnv(t)
	server, client, receiver, activity := crowd(env)
	cases := slices.Concat(pidFilters(receiver), commFilters(), userFilters(), exclusions(receiver), roleFilters(server, client))
	narrow := make([]*harness.Tracer, len(cases))
	for i, c := range cases {
		o := harness.InNamespace(env.Netns)
		o.BufferSize = 1 << 20 // there are many tracers, and guests have little memory
		o.Filter = c.filter
		o.Filter.Netns = []uint32{env.Netns.Inode()}
		narrow[i] = harness.StartTracer(t, o)
	}
	env.UseSharedTracers()
	activity()
	all := env.Finish()
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if len(c.filter.Roles) > 0 {
				harness.RequireFeature(t, probe.SocketStorage)
			}
			harness.CheckInstructions(t, narrow[i])
			c.check(t, all, narrow[i].Stop())
		})
	}
}

func (c *filterCase) check(t *testing.T, all, filtered []harness.Record) {
	t.Helper()
	var want, got []string
	for _, l := range all {
		if l.Type == "transition" && l.PeerPort != harness.FencePort && c.wanted(l) {
			want = append(want, summary(l))
		}
	}
	for _, l := range filtered {
		if l.Type == "transition" && l.PeerPort != harness.FencePort {
			got = append(got, summary(l))
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("records with the filter:\n%s\nwanted records without a filter:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if len(want) == 0 {
		t.Error("the test is wrong: no record passes the filter")
	}
	t.Logf("%d of %d records pass", len(want), len(all))
}

// workerUID is the user of the process that accepts.
const workerUID = 1234

// summary is what must be equal in the records of two tracers: all but the times.
func summary(l harness.Record) string {
	pid := "no owner"
	if l.PID != nil {
		pid = fmt.Sprint(*l.PID)
	}
	return fmt.Sprint(l.Conn, " ", l.Role, " ", l.Old, " ", l.New, " ", pid, " ", l.Comm, " ", l.Source)
}

// crowd starts processes; activity makes them pass on, inherit and close sockets.
func crowd(env *harness.Env) (server, client, receiver *harness.Actor, activity func()) {
	server, client = env.ServerAndClient()
	receiver = env.StartActor("receiver", 1)
	return server, client, receiver, func() {
		listener := server.Listen(harness.At(7000))
		worker := server.Fork("worker", 0, 0)
		worker.SetUID(workerUID)
		for i := range 4 {
			c := client.Dial(harness.At(7000))
			s := worker.Accept(listener)
			if i%2 == 0 {
				client.PassFD(c, receiver, true)
				harness.CloseInOrder(receiver, c, worker, s, i == 0)
			} else {
				harness.CloseInOrder(client, c, worker, s, i == 1)
			}
		}
		client.Rename("new-name")
		c := client.Dial(harness.At(7000))
		harness.CloseInOrder(client, c, worker, worker.Accept(listener), true)
		worker.Kill()
	}
}

// --pid lets through records that name this process as the owner.
func pidFilters(actors ...*harness.Actor) (cases []filterCase) {
	for _, a := range actors {
		cases = append(cases, filterCase{"pid of " + a.Name(), filter.Filter{PIDs: []uint32{uint32(a.PID)}}, isOf(a)})
	}
	return cases
}

func isOf(a *harness.Actor) func(l harness.Record) bool {
	return func(l harness.Record) bool { return l.PID != nil && int(*l.PID) == a.PID }
}

// --comm compares the comm of the record.
func commFilters() (cases []filterCase) {
	for _, names := range [][]string{{"new-name"}, {"worker", "receiver"}} {
		cases = append(cases, filterCase{"comm " + strings.Join(names, " "), filter.Filter{Comms: names},
			func(l harness.Record) bool { return slices.Contains(names, l.Comm) }})
	}
	return cases
}

// --uid compares the uid of the record, which a socket gets when a process accepts it.
func userFilters() []filterCase {
	return []filterCase{
		{"uid", filter.Filter{UIDs: []uint32{workerUID}}, func(l harness.Record) bool { return *l.UID == workerUID }},
		{"not uid", filter.Filter{Not: filter.Exclusions{UIDs: []uint32{workerUID}}}, func(l harness.Record) bool { return *l.UID != workerUID }},
	}
}

// An exclusion leaves out the records that name the process. A record without an owner passes.
func exclusions(a *harness.Actor) []filterCase {
	return []filterCase{
		{
			"not pid of " + a.Name(), filter.Filter{Not: filter.Exclusions{PIDs: []uint32{uint32(a.PID)}}},
			func(l harness.Record) bool { return !isOf(a)(l) },
		}, {
			"not comm", filter.Filter{Not: filter.Exclusions{Comms: []string{"worker", "new-name"}}},
			func(l harness.Record) bool { return l.Comm != "worker" && l.Comm != "new-name" },
		},
	}
}

// --role, alone and together with --pid.
func roleFilters(server, client *harness.Actor) (cases []filterCase) {
	for role, a := range map[tcp.Role]*harness.Actor{tcp.RoleClient: client, tcp.RoleServer: server, tcp.RoleListener: server} {
		is := func(l harness.Record) bool { return l.Role == role.String() }
		alone := filter.Filter{Roles: []tcp.Role{role}}
		withPID := filter.Filter{Roles: []tcp.Role{role}, PIDs: []uint32{uint32(a.PID)}}
		cases = append(cases, filterCase{fmt.Sprintf("role %v with pid", role), withPID, func(l harness.Record) bool { return is(l) && isOf(a)(l) }})
		if role != tcp.RoleServer { // each case loads a tracer
			cases = append(cases, filterCase{fmt.Sprintf("role %v", role), alone, is})
		}
	}
	return cases
}

// --exclude-self leaves out the sockets of the tracer's own process, whether opened
// before or after the start, and lets through the other end of their connections. A
// socket that the process has passed on is no longer its own.
func TestFilter_ExcludeSelf(t *testing.T) {
	older, younger := newSelfEnv(t), newSelfEnv(t)
	older.openOwn()
	o := harness.Options{Options: probe.Options{Ends: true, ExcludeSelf: true}}
	o.Filter.Netns = []uint32{older.Netns.Inode(), younger.Netns.Inode()}
	tr := harness.StartTracer(t, o)
	older.UseTracer(tr)
	younger.UseTracer(tr)
	younger.openOwn()
	older.use()
	younger.use()
	lines := tr.Stop() // no fence: the tracer would leave it out
	for name, env := range map[string]*selfEnv{"older than the tracer": older, "younger than the tracer": younger} {
		t.Run(name, func(t *testing.T) {
			env.T = t
			env.checkSelf(lines, env == older)
		})
	}
}

// selfEnv has sockets of the test's own process, which is also the tracer's.
type selfEnv struct {
	*harness.Env
	other            *harness.Actor
	theirs           *harness.Socket // the other process's listener
	listener, client *tcplab.Socket
	toListener       *harness.Socket // of the other process, in the queue of the test's listener
	toClient         *harness.Socket
}

func newSelfEnv(t *testing.T) *selfEnv {
	t.Helper()
	env := &selfEnv{Env: harness.NewEnv(t)}
	env.other = env.StartActor("the-other", 1)
	env.theirs = env.other.Listen(harness.At(7000))
	return env
}

func (env *selfEnv) openOwn() {
	env.T.Helper()
	env.listener = env.Netns.Listen(harness.At(7100))
	env.client = env.Netns.Dial(harness.At(7000))
	env.toClient = env.other.Accept(env.theirs)
	env.toListener = env.other.Dial(harness.At(7100))
}

// use makes all kinds of transitions of the test's own sockets.
func (env *selfEnv) use() {
	accepted := env.listener.Accept()
	env.other.Close(env.toListener)
	accepted.ReadEOF()
	accepted.Close()
	env.other.Close(env.toClient)
	env.client.ReadEOF()
	env.client.Close()
	second := env.other.Dial(harness.At(7100))
	again := env.listener.Accept()
	again.Close()
	env.other.AwaitState(second, tcplab.CloseWait)
	env.other.Close(second)
	env.listener.Close()
	env.other.CloseFD(env.other.FD(env.theirs))
	env.Netns.Settle(0)
}

func (env *selfEnv) checkSelf(lines []harness.Record, older bool) {
	t := env.T
	t.Helper()
	env.Tracer = env.Captures[0].Tracer
	remembers := env.Has(probe.SocketStorage)
	others := 0
	for _, l := range lines {
		if l.Type != "transition" || l.Netns != env.Netns.Inode() {
			continue
		}
		if l.PID != nil && int(*l.PID) == unix.Getpid() {
			t.Errorf("a record names the tracer's own process: %s", l.Raw)
		}
		if l.PID != nil && l.Comm == "the-other" {
			others++
		}
		if l.PID == nil && !older && remembers {
			t.Errorf("a record without an owner: %s", l.Raw)
		}
	}
	want := 15
	if older {
		want = 12 // three came before the tracer
	}
	if !remembers {
		want = 6 // those it makes under the lock
	}
	if others < want {
		t.Errorf("%d transitions of the other process, want %d", others, want)
	}
}

// Every filter is code that each kernel's verifier must accept, alone and with all
// others. The filters let through the IPv4 connections of the test only.
func TestFilter_LoadsOnThisKernel(t *testing.T) {
	loopback4 := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	elsewhere := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}
	every := []filter.PortRange{{First: 1, Last: 65535}}
	var states []tcp.State
	for s := tcp.Established; s <= tcp.Closing; s++ {
		states = append(states, s)
	}
	const rootCgroup = 1
	excluded := filter.Exclusions{ // nothing of the test
		Ports: []filter.PortRange{{First: 1, Last: 1}}, LocalPorts: []filter.PortRange{{First: 2, Last: 2}},
		PeerPorts: []filter.PortRange{{First: 3, Last: 3}},
		Addrs:     elsewhere, LocalAddrs: elsewhere, PeerAddrs: elsewhere,
		PIDs: []uint32{1}, Comms: []string{"no-such-name"}, Netns: []uint32{1}, Cgroups: []uint64{1 << 40}, UIDs: []uint32{4321},
	}
	excludedFamily := excluded
	excludedFamily.Addrs = []netip.Prefix{netip.MustParsePrefix("::/0")}
	filters := map[string]filter.Filter{
		"all": {
			Family: 4, Ports: every, LocalPorts: every, PeerPorts: every,
			Addrs: loopback4, LocalAddrs: loopback4, PeerAddrs: loopback4,
			PIDs: []uint32{uint32(unix.Getpid())}, Comms: []string{harness.ReadComm(unix.Getpid())}, Cgroups: []uint64{rootCgroup},
			OldStates: states, NewStates: states, Roles: []tcp.Role{tcp.RoleClient, tcp.RoleServer},
		},
		"all and exclusions": {
			Family: 4, Ports: every, LocalPorts: every, PeerPorts: every,
			Addrs: loopback4, LocalAddrs: loopback4, PeerAddrs: loopback4,
			PIDs: []uint32{uint32(unix.Getpid())}, Comms: []string{harness.ReadComm(unix.Getpid())}, Cgroups: []uint64{rootCgroup},
			UIDs: []uint32{0}, OldStates: states, NewStates: states, Roles: []tcp.Role{tcp.RoleClient, tcp.RoleServer},
			Not: excluded,
		},
		"exclusions": {Not: excludedFamily},
		"addresses":  {LocalAddrs: loopback4, PeerAddrs: loopback4},
		"every peer": {PeerAddrs: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}},
		"states":     {Family: 4, OldStates: states, Cgroups: []uint64{rootCgroup}},
	}
	for name, f := range filters {
		t.Run(name, func(t *testing.T) {
			if row, known := harness.ThisKernel(t); known && !row.HasFeature(expect.SocketStorage) {
				f.Roles = nil
			}
			n := tcplab.NewNetns(t)
			o := harness.InNamespace(n)
			o.TimeWaitEnds = strings.HasPrefix(name, "all")
			o.Filter = f
			o.Filter.Netns = []uint32{n.Inode()}
			tr := harness.StartTracer(t, o)
			harness.CheckInstructions(t, tr)
			tcplab.HalfClose(n, tcplab.V6)
			tcplab.HalfClose(n, tcplab.V4)
			passed := 0
			for _, l := range harness.OfType(tr.Stop(), "transition") {
				if passed++; l.Family != "ipv4" {
					t.Errorf("passed the filter although not IPv4: %s", l.Raw)
				}
				if len(f.PeerAddrs) > 0 && l.PeerPort == 0 {
					t.Errorf("passed the filter on peer addresses without a peer: %s", l.Raw)
				}
			}
			if passed == 0 {
				t.Error("no transition passed the filter")
			}
		})
	}
}

// The tracer need not keep state of a connection that a filter on ports leaves out.
// When its socket then connects to a wanted port, in_state_ns is absent or the time
// since the close; it never is the time since the first connection was opened.
func TestFilter_ReusedSocketHasNoOldTime(t *testing.T) {
	harness.RequireFeature(t, probe.SocketStorage)
	n := tcplab.NewNetns(t)
	listener := n.Listen(tcplab.V4.At(7001))
	o := harness.InNamespace(n)
	o.BufferSize = 1 << 20
	o.Filter.PeerPorts = []filter.PortRange{{First: 7002, Last: 7002}}
	tr := harness.StartTracer(t, o)
	s := n.Dial(tcplab.V4.At(7001))
	child := listener.Accept()
	time.Sleep(50 * time.Millisecond) // the first connection is open for so long
	began := time.Now()
	s.Disconnect()
	if err := s.TryConnect(tcplab.V4.At(7002)); !errors.Is(err, unix.ECONNREFUSED) {
		t.Fatal(err)
	}
	closed := time.Since(began)
	s.Close()
	child.Close()
	opened := 0
	for _, l := range harness.OfType(tr.Stop(), "transition") {
		switch {
		case l.PeerPort != 7002:
			t.Errorf("passed the filter on peer port 7002: %s", l.Raw)
		case l.New == "SYN_SENT":
			opened++
			if l.InState != nil && time.Duration(*l.InState) > closed {
				t.Errorf("in_state_ns is too long, it was closed for %v at most: %s", closed, l.Raw)
			}
		}
	}
	if opened != 1 {
		t.Errorf("%d connections were opened to port 7002, want 1", opened)
	}
}
