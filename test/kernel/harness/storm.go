package harness

import (
	"fmt"
	"math/bits"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Storm is many short connections between two processes that do nothing else, with two
// threads each, so that softirqs often interrupt a process that does not own the
// socket.
type Storm struct {
	Server, Client *Actor
	listeners      []*Socket
}

const stormThreads = 2

// NewStormEnv returns a namespace with room for all TIME_WAITs of a storm, and the
// tracer that storms share, which runs without the given features.
func NewStormEnv(t *testing.T, without ...string) *Env {
	t.Helper()
	const perConnection = 10 * 256 // bytes in the ring
	tr := sharedStormTracer(t, without, 1<<bits.Len(uint(perConnection*StormConnections(t))))
	env := NewEnv(t)
	env.Netns.Sysctl("net.ipv4.tcp_max_tw_buckets", "1000000")
	env.Tracer = tr
	env.Captures = []*capture{{env.Tracer, true, env.Tracer.size()}}
	env.tracedSince = Now()
	return env
}

// RunStorm makes the connections and waits for their end. The operations serving and
// calling run on each thread of the server and of the client.
func RunStorm(env *Env, connections int, serving, calling uintptr) *Storm {
	env.T.Helper()
	st := &Storm{Server: env.StartActor("storm-server", stormThreads), Client: env.StartActor("storm-client", stormThreads)}
	var orders []*Order
	var begin []func()
	for i := range stormThreads {
		port := uint16(7000 + i)
		listener := st.Server.Listen(Anywhere(port))
		st.listeners = append(st.listeners, listener)
		reads, writes := st.CreditPipe()
		accept, connect := st.Server.Threads[i].Order(serving), st.Client.Threads[i].Order(calling)
		orders = append(orders, accept, connect)
		share := uintptr(connections / stormThreads)
		begin = append(begin, func() {
			accept.Send(st.Server.FD(listener), share, uintptr(writes))
			connect.Send(uintptr(port), share, uintptr(reads))
		})
	}
	for _, f := range begin {
		f()
	}
	for _, o := range orders {
		if n, err := o.Wait(); n != connections/stormThreads {
			env.T.Fatalf("the storm made %d connections: %v", n, err)
		}
	}
	return st
}

// CreditPipe makes the pipe by which OpAccept limits how far OpConnect is ahead: the server
// writes a byte for each connection that it has closed. reads is the client's descriptor,
// writes the server's.
func (st *Storm) CreditPipe() (reads, writes int) {
	env := st.Server.env
	env.T.Helper()
	o := st.Server.Order(unix.SYS_PIPE2)
	ends := o.Put(make([]byte, 8))
	_, err := o.do(ends, 0)
	env.must(st.Server, unix.SYS_PIPE2, err)
	theirs, mine := int(o.got(ends, 8)[0]), int(o.got(ends, 8)[4])
	o = st.Client.Order(unix.SYS_OPENAT)
	path := fmt.Appendf(nil, "/proc/%d/fd/%d\x00", st.Server.PID, theirs)
	cwd := unix.AT_FDCWD
	reads, err = o.do(uintptr(cwd), o.Put(path), unix.O_RDONLY, 0)
	env.must(st.Client, unix.SYS_OPENAT, err)
	st.Server.CloseRaw(theirs)
	return reads, mine
}

// CheckOwners fails the test for each transition with a wrong owner. It returns the numbers
// of all transitions, of those with the right owner and of those with a wrong one; breakdown
// is for a log: a line for each role and pid_source with the number of its transitions.
func (st *Storm) CheckOwners(env *Env, lines []Record) (all, known, wrong int, breakdown string) {
	env.T.Helper()
	right := map[string]*Actor{"client": st.Client, "server": st.Server, "listener": st.Server}
	counts := map[string]int{}
	for _, l := range lines {
		if l.Type != "transition" || l.Netns != env.Netns.Inode() {
			continue
		}
		all++
		role := stormRole(l)
		a := right[role]
		switch {
		case l.PID == nil:
			counts[role+" no owner "+l.Old+">"+l.New]++
		case a == nil || int(*l.PID) != a.PID || l.Comm != a.Name():
			if wrong++; wrong <= 20 {
				env.T.Errorf("wrong owner: %s", l.Raw)
			}
			counts[role+" WRONG "+l.Comm+" "+l.Source+" "+l.Old+">"+l.New]++
		default:
			known++
			counts[role+" "+l.Source]++
		}
	}
	var b strings.Builder
	for what, count := range counts {
		fmt.Fprintf(&b, "\n    %7d %s", count, what)
	}
	return all, known, wrong, b.String()
}

// stormRole returns the role of the record, or finds it by the ports.
func stormRole(l Record) string {
	servers := uint16(7000)
	switch {
	case l.Role != "":
		return l.Role
	case l.LocalPort >= servers && l.LocalPort < servers+stormThreads:
		return "server"
	case l.PeerPort >= servers && l.PeerPort < servers+stormThreads:
		return "client"
	}
	return ""
}

// CheckStorm closes the listeners and checks the owners of all transitions.
func CheckStorm(t *testing.T, env *Env, st *Storm) {
	t.Helper()
	for _, l := range st.listeners {
		st.Server.Close(l)
	}
	env.Netns.Settle(0)
	all, known, wrong, breakdown := st.CheckOwners(env, env.Collect()[0])
	t.Logf("%d transitions, %d with an owner (%.3f %%), %d wrong%s", all, known, 100*float64(known)/float64(all), wrong, breakdown)
	// A socket has no owner between the close of its descriptor and the moment at which
	// it is an orphan, because close() waits for the lock. Few transitions fall into
	// that time.
	if env.Has("socket_storage") && all-known > max(10, all/1000) {
		t.Errorf("an owner for %d of %d transitions, want 99.9 %%", known, all)
	}
	if wrong > 0 {
		t.Errorf("%d wrong owners", wrong)
	}
}

// DumpForever makes the process dump all sockets in a loop until it ends.
func (a *Actor) DumpForever() {
	a.env.T.Helper()
	a.RequireDump()
	a.Order(OpDump).Send(uintptr(a.OpenDiag()))
}

// StormConnections is the size of a storm: enough for the programs to interrupt each
// other often. TCPSHIFT_STORM_CONNECTIONS sets fewer for emulated kernels.
func StormConnections(t *testing.T) int {
	t.Helper()
	text := os.Getenv("TCPSHIFT_STORM_CONNECTIONS")
	if text == "" {
		return 50_000
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("TCPSHIFT_STORM_CONNECTIONS: %v", err)
	}
	return n
}

// Scaled returns whole for storms of full size, and proportionally less for smaller
// storms, with least as the minimum.
func Scaled(t *testing.T, whole, least int) int {
	t.Helper()
	return max(least, min(whole, whole*StormConnections(t)/50_000))
}
