package kernel_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/tcp"
	"github.com/tcpshift/tcpshift/test/lab"
)

// filtered runs a story beside two tracers, and compares what the one with a filter
// says with what the one without says of the wanted records.
func filtered(t *testing.T, before func(w *world) options, story func(w *world), wanted func(l line) bool) {
	t.Helper()
	w := newWorld(t)
	o := before(w)
	o.Filter.Netns = []uint32{w.n.Inode()}
	narrow := startTracer(t, o)
	w.watch()
	story(w)
	all := w.finish()
	var want, got []string
	for _, l := range all {
		if l.Type == "transition" && l.PeerPort != fencePort && wanted(l) {
			want = append(want, summary(l))
		}
	}
	for _, l := range narrow.stop() {
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
func crowd(w *world) (server, client, heir *actor, story func(*world)) {
	server, client = w.pair()
	heir = w.startActor("heir", 1)
	return server, client, heir, func(*world) {
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
func TestThePIDFilterKeepsWhatIsThatProcesss(t *testing.T) {
	for _, whose := range []string{"server", "client", "heir"} {
		t.Run(whose, func(t *testing.T) {
			var a *actor
			var story func(*world)
			filtered(t, func(w *world) options {
				var server, client, heir *actor
				server, client, heir, story = crowd(w)
				a = map[string]*actor{"server": server, "client": client, "heir": heir}[whose]
				o := in(w.n)
				o.Filter.PIDs = []uint32{uint32(a.pid)}
				return o
			}, func(w *world) { story(w) }, func(l line) bool { return l.PID != nil && int(*l.PID) == a.pid })
		})
	}
}

// --comm: by the name that the record has.
func TestTheCommFilterKeepsWhatIsUnderThatName(t *testing.T) {
	for _, names := range [][]string{{"a-client"}, {"new-name"}, {"worker", "heir"}} {
		t.Run(strings.Join(names, " "), func(t *testing.T) {
			var story func(*world)
			filtered(t, func(w *world) options {
				_, _, _, story = crowd(w)
				o := in(w.n)
				o.Filter.Comms = names
				return o
			}, func(w *world) { story(w) }, func(l line) bool { return slices.Contains(names, l.Comm) })
		})
	}
}

// --role, alone and with --pid.
func TestTheRoleFilterKeepsThatSide(t *testing.T) {
	requireFeature(t, probe.SocketStorage)
	for _, role := range []tcp.Role{tcp.RoleClient, tcp.RoleServer, tcp.RoleListener} {
		for _, withPID := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v, with pid %v", role, withPID), func(t *testing.T) {
				var a *actor
				var story func(*world)
				filtered(t, func(w *world) options {
					var server, client *actor
					server, client, _, story = crowd(w)
					a = server
					if role == tcp.RoleClient {
						a = client
					}
					o := in(w.n)
					o.Filter.Roles = []tcp.Role{role}
					if withPID {
						o.Filter.PIDs = []uint32{uint32(a.pid)}
					}
					return o
				}, func(w *world) { story(w) }, func(l line) bool {
					return l.Role == role.String() && (!withPID || l.PID != nil && int(*l.PID) == a.pid)
				})
			})
		}
	}
}

// ExcludeSelf leaves out what the tracer's own process has, opened before the start
// or after, and nothing of the process at the other end. What it has passed on is no
// longer its own.
func TestTheTracersOwnSocketsAreLeftOutAndNobodyElses(t *testing.T) {
	for _, older := range []bool{false, true} {
		t.Run(fmt.Sprintf("older than the tracer %v", older), func(t *testing.T) {
			w := newWorld(t)
			other := w.startActor("the-other", 1)
			theirs := other.listen(at(7000))
			o := in(w.n)
			o.ExcludeSelf = true
			var mine ownSockets
			if !older {
				w.trace(o)
			}
			mine = openOwn(w, other, theirs)
			if older {
				w.trace(o)
			}
			mine.use(other, theirs)
			checkSelf(w, older)
		})
	}
}

// ownSockets are the test process's, whose process is the tracer's as well.
type ownSockets struct {
	listener, client *lab.Socket
	toListener       *sock // the other's, in the queue of the test's listener
	toClient         *sock
}

func openOwn(w *world, other *actor, theirs *sock) ownSockets {
	w.t.Helper()
	var mine ownSockets
	mine.listener = w.n.Listen(at(7100))
	mine.client = w.n.Dial(at(7000))
	mine.toClient = other.accept(theirs)
	mine.toListener = other.dial(at(7100))
	return mine
}

// use makes every kind of transition of the test's own sockets.
func (mine *ownSockets) use(other *actor, theirs *sock) {
	accepted := mine.listener.Accept()
	other.close(mine.toListener)
	accepted.ReadEOF()
	accepted.Close()
	other.close(mine.toClient)
	mine.client.ReadEOF()
	mine.client.Close()
	second := other.dial(at(7100))
	again := mine.listener.Accept()
	again.Close()
	other.awaitState(second, lab.CloseWait)
	other.close(second)
	mine.listener.Close()
	other.closeFD(other.fd(theirs))
}

func checkSelf(w *world, older bool) {
	w.t.Helper()
	w.n.Settle(0)
	for _, lines := range w.collect() {
		w.checkSelfLines(lines, older)
	}
}

func (w *world) checkSelfLines(lines []line, older bool) {
	t := w.t
	t.Helper()
	w.tr = w.watches[0].tr
	remembers := w.has(probe.SocketStorage)
	others := 0
	for _, l := range lines {
		if l.Type != "transition" {
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
