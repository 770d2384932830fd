package kernel_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/tcp"
	"github.com/tcpshift/tcpshift/test/kernelmatrix/expect"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// A filterCase is a filter, and of which records of an unfiltered tracer it is to
// leave nothing but these.
type filterCase struct {
	name   string
	filter filter.Filter
	wanted func(l line) bool
}

// A story is played beside a tracer for each filter and one without: each filter's says
// what that one says of the wanted records.
func TestFilter_OwnersAndRoles(t *testing.T) {
	w := newWorld(t)
	server, client, heir, story := crowd(w)
	cases := slices.Concat(pidFilters(heir), commFilters(), roleFilters(server, client))
	narrow := make([]*tracer, len(cases))
	for i, c := range cases {
		o := in(w.n)
		o.BufferSize = 1 << 20 // there are many, and guests have little memory
		o.Filter = c.filter
		o.Filter.Netns = []uint32{w.n.Inode()}
		narrow[i] = startTracer(t, o)
	}
	w.watch()
	story()
	all := w.finish()
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if len(c.filter.Roles) > 0 {
				requireFeature(t, probe.SocketStorage)
			}
			checkInstructions(t, narrow[i])
			c.check(t, all, narrow[i].stop())
		})
	}
}

func (c *filterCase) check(t *testing.T, all, told []line) {
	t.Helper()
	var want, got []string
	for _, l := range all {
		if l.Type == "transition" && l.PeerPort != fencePort && c.wanted(l) {
			want = append(want, summary(l))
		}
	}
	for _, l := range told {
		if l.Type == "transition" && l.PeerPort != fencePort {
			got = append(got, summary(l))
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("with the filter:\n%s\nwithout, restricted to the same:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if len(want) == 0 {
		t.Error("the filter wants nothing of this story")
	}
	t.Logf("%d records of %d", len(want), len(all))
}

// summary is what must be the same for both tracers: all but when they were asked.
func summary(l line) string {
	pid := "nobody"
	if l.PID != nil {
		pid = fmt.Sprint(*l.PID)
	}
	return fmt.Sprint(l.Conn, " ", l.Role, " ", l.Old, " ", l.New, " ", pid, " ", l.Comm, " ", l.Source)
}

// crowd is several processes that do what processes do to each other's sockets.
func crowd(w *world) (server, client, heir *actor, story func()) {
	server, client = w.pair()
	heir = w.startActor("heir", 1)
	return server, client, heir, func() {
		listener := server.listen(at(7000))
		worker := server.fork("worker", 0, 0)
		for i := range 4 {
			c := client.dial(at(7000))
			s := worker.accept(listener)
			if i%2 == 0 {
				client.pass(c, heir, true)
				inOrder(heir, c, worker, s, i == 0)
			} else {
				inOrder(client, c, worker, s, i == 1)
			}
		}
		client.rename("new-name")
		c := client.dial(at(7000))
		inOrder(client, c, worker, worker.accept(listener), true)
		worker.kill()
	}
}

// --pid: a record is kept for the owner that it names, and for nothing else.
func pidFilters(actors ...*actor) (cases []filterCase) {
	for _, a := range actors {
		cases = append(cases, filterCase{"pid of " + a.name(), filter.Filter{PIDs: []uint32{uint32(a.pid)}}, isOf(a)})
	}
	return cases
}

func isOf(a *actor) func(l line) bool {
	return func(l line) bool { return l.PID != nil && int(*l.PID) == a.pid }
}

// --comm: by the name that the record has.
func commFilters() (cases []filterCase) {
	for _, names := range [][]string{{"new-name"}, {"worker", "heir"}} {
		cases = append(cases, filterCase{"comm " + strings.Join(names, " "), filter.Filter{Comms: names},
			func(l line) bool { return slices.Contains(names, l.Comm) }})
	}
	return cases
}

// --role, alone and with --pid.
func roleFilters(server, client *actor) (cases []filterCase) {
	for role, a := range map[tcp.Role]*actor{tcp.RoleClient: client, tcp.RoleServer: server, tcp.RoleListener: server} {
		is := func(l line) bool { return l.Role == role.String() }
		alone := filter.Filter{Roles: []tcp.Role{role}}
		withPID := filter.Filter{Roles: []tcp.Role{role}, PIDs: []uint32{uint32(a.pid)}}
		cases = append(cases, filterCase{fmt.Sprintf("role %v with pid", role), withPID, func(l line) bool { return is(l) && isOf(a)(l) }})
		if role != tcp.RoleServer { // each is a tracer of its own, which takes its time
			cases = append(cases, filterCase{fmt.Sprintf("role %v", role), alone, is})
		}
	}
	return cases
}

// ExcludeSelf leaves out what the tracer's own process has, opened before the start
// or after, and nothing of the process at the other end. What it has passed on is no
// longer its own.
func TestFilter_ExcludeSelf(t *testing.T) {
	older, younger := newSelfWorld(t), newSelfWorld(t)
	older.openOwn()
	o := options{Options: probe.Options{Ends: true, ExcludeSelf: true}}
	o.Filter.Netns = []uint32{older.n.Inode(), younger.n.Inode()}
	tr := startTracer(t, o)
	older.watchBy(tr)
	younger.watchBy(tr)
	younger.openOwn()
	older.use()
	younger.use()
	lines := tr.stop() // no fence: it would be the tracer's own
	for name, w := range map[string]*selfWorld{"older than the tracer": older, "younger than the tracer": younger} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			w.checkSelf(lines, w == older)
		})
	}
}

// selfWorld has sockets of the test's own process, which is the tracer's as well.
type selfWorld struct {
	*world
	other            *actor
	theirs           *sock // the other's listener
	listener, client *tcplab.Socket
	toListener       *sock // the other's, in the queue of the test's listener
	toClient         *sock
}

func newSelfWorld(t *testing.T) *selfWorld {
	t.Helper()
	w := &selfWorld{world: newWorld(t)}
	w.other = w.startActor("the-other", 1)
	w.theirs = w.other.listen(at(7000))
	return w
}

func (w *selfWorld) openOwn() {
	w.t.Helper()
	w.listener = w.n.Listen(at(7100))
	w.client = w.n.Dial(at(7000))
	w.toClient = w.other.accept(w.theirs)
	w.toListener = w.other.dial(at(7100))
}

// use makes every kind of transition of the test's own sockets.
func (w *selfWorld) use() {
	accepted := w.listener.Accept()
	w.other.close(w.toListener)
	accepted.ReadEOF()
	accepted.Close()
	w.other.close(w.toClient)
	w.client.ReadEOF()
	w.client.Close()
	second := w.other.dial(at(7100))
	again := w.listener.Accept()
	again.Close()
	w.other.awaitState(second, tcplab.CloseWait)
	w.other.close(second)
	w.listener.Close()
	w.other.closeFD(w.other.fd(w.theirs))
	w.n.Settle(0)
}

func (w *selfWorld) checkSelf(lines []line, older bool) {
	t := w.t
	t.Helper()
	w.tr = w.watches[0].tr
	remembers := w.has(probe.SocketStorage)
	others := 0
	for _, l := range lines {
		if l.Type != "transition" || l.Netns != w.n.Inode() {
			continue
		}
		if l.PID != nil && int(*l.PID) == unix.Getpid() {
			t.Errorf("the tracer's own: %s", l.raw)
		}
		if l.PID != nil && l.Comm == "the-other" {
			others++
		}
		if l.PID == nil && !older && remembers {
			t.Errorf("nobody's: %s", l.raw)
		}
	}
	want := 15
	if older {
		want = 12 // the three that opened what it has came before the tracer
	}
	if !remembers {
		want = 6 // that it makes itself
	}
	if others < want {
		t.Errorf("%d transitions of the other process, want its %d", others, want)
	}
}

// Each filter is code of its own, which every kernel's verifier has to take: alone, and
// with all others. What is told of the test's own connections is what was asked for.
func TestFilter_LoadsOnThisKernel(t *testing.T) {
	loopback4 := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	every := []filter.PortRange{{First: 1, Last: 65535}}
	var states []tcp.State
	for s := tcp.Established; s <= tcp.Closing; s++ {
		states = append(states, s)
	}
	const rootCgroup = 1
	filters := map[string]filter.Filter{
		"all": {
			Family: 4, Ports: every, LocalPorts: every, PeerPorts: every,
			Addrs: loopback4, LocalAddrs: loopback4, PeerAddrs: loopback4,
			PIDs: []uint32{uint32(unix.Getpid())}, Comms: []string{readComm(unix.Getpid())}, Cgroups: []uint64{rootCgroup},
			OldStates: states, NewStates: states, Roles: []tcp.Role{tcp.RoleClient, tcp.RoleServer},
		},
		"addresses": {LocalAddrs: loopback4, PeerAddrs: loopback4},
		"states":    {Family: 4, OldStates: states, Cgroups: []uint64{rootCgroup}},
	}
	for name, f := range filters {
		t.Run(name, func(t *testing.T) {
			if row, known := thisKernel(t); known && !row.Gives(expect.SocketStorage) {
				f.Roles = nil
			}
			n := tcplab.NewNetns(t)
			o := in(n)
			o.TimeWaitEnds = name == "all"
			o.Filter = f
			o.Filter.Netns = []uint32{n.Inode()}
			tr := startTracer(t, o)
			checkInstructions(t, tr)
			tcplab.HalfClose(n, tcplab.V6)
			tcplab.HalfClose(n, tcplab.V4)
			told := 0
			for _, l := range ofType(tr.stop(), "transition") {
				if told++; l.Family != "ipv4" {
					t.Errorf("not asked for: %s", l.raw)
				}
			}
			if told == 0 {
				t.Error("nothing is told")
			}
		})
	}
}
