package harness

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// describePossessions lists which process had the socket open from when to when,
// relative to the time of the record.
func (env *Env) describePossessions(s *Socket, at Moment) string {
	if s == nil {
		return ""
	}
	var b strings.Builder
	rel := func(m Moment) string {
		if m == 0 {
			return "now"
		}
		return fmt.Sprintf("%+dus", (m-at)/1000)
	}
	for _, h := range s.possessions {
		fmt.Fprintf(&b, "    open in %s (%d) from %s to %s\n", h.a.Name(), h.a.PID, rel(h.from), rel(h.until))
	}
	for _, l := range s.Listeners {
		b.WriteString("  " + l.What + ":\n" + env.describePossessions(l, at))
	}
	return b.String()
}

func openIn(s *Socket, pid int, at Moment) *Actor {
	for _, h := range s.possessions {
		if h.a.PID == pid && h.covers(at) {
			return h.a
		}
	}
	return nil
}

// listenerOpenIn is openIn for the listeners in whose queue the socket is or was.
func listenerOpenIn(s *Socket, pid int, at Moment) *Actor {
	for _, l := range s.Listeners {
		if a := openIn(l, pid, at); a != nil && (l.ended == 0 || at <= l.ended+ClockSlack) {
			return a
		}
	}
	return nil
}

// rightProcess returns the process with this pid that may be named as the owner: it has
// the socket open, or it closed the socket last and no process has it open.
func (env *Env) rightProcess(pid int, s *Socket, at Moment) *Actor {
	if a := openIn(s, pid, at); a != nil {
		return a
	}
	if last := lastCloser(s, at); last != nil && last.PID == pid {
		return last
	}
	return nil
}

// lastCloser returns the process that closed the socket last. It is nil if a process has
// the socket open, or if none has had it open yet.
func lastCloser(s *Socket, at Moment) *Actor {
	var last possession
	for _, h := range s.possessions {
		if h.from-ClockSlack > at {
			continue
		}
		if h.until == 0 || h.until > at {
			return nil
		}
		if h.until > last.until {
			last = h
		}
	}
	if s.inFlight {
		return nil
	}
	return last.a
}

func (env *Env) alive(pid int, at Moment) *Actor {
	for _, a := range env.actors {
		if a.PID == pid && a.born+ClockSlack < at && (a.died == 0 || at < a.died) {
			return a
		}
	}
	return nil
}

// Moment is wall-clock time in nanoseconds since 1970, comparable with a record's time.
type Moment int64

// Now returns the wall-clock time.
func Now() Moment { return Moment(time.Now().UnixNano()) }

// ClockSlack bounds the difference between a record's time and the test's: both read
// the same clocks, but at different instants. Steps of a case are further apart.
const ClockSlack = Moment(100 * time.Microsecond)

// timeline is the history of a value. A change takes from one moment to another.
type timeline[T comparable] []change[T]

type change[T comparable] struct {
	from, until Moment
	Value       T
}

func (h *timeline[T]) add(from, until Moment, value T) {
	*h = append(*h, change[T]{from, until, value})
}

// mayBe reports whether the value may be this one at the moment. During a change both
// the old and the new value may be.
func (h timeline[T]) mayBe(value T, at Moment) bool {
	for i, c := range h {
		over := i+1 < len(h) && h[i+1].until+ClockSlack < at
		if c.Value == value && c.from-ClockSlack <= at && !over {
			return true
		}
	}
	return false
}

// Socket is one TCP socket, and the processes that had it open.
type Socket struct {
	What          string // for messages
	Conn          string // its cookie; "": no process ever had a descriptor of it
	inode         string // as /proc/PID/fd shows it
	Role          string
	Local, Peer   netip.AddrPort
	ByPorts       bool      // its records have another cookie, as with MPTCP: find them by port
	Listeners     []*Socket // in whose queue it was; several after a migration
	ended         Moment    // when a listener was shut down or destroyed while a process had it open; 0: never
	possessions   []possession
	operations    []operation // calls that make a transition under the socket's lock
	reads         []step      // calls that read data
	uids          timeline[int]
	inFlight      bool // in a message not received yet, or in an io_uring
	BeforeTracing bool
	dropping      bool
	registered    bool // in an io_uring, which a kernel thread may close

	written, read uint64 // bytes, as the system calls returned them
}

type operation struct {
	a    *Actor
	from Moment
}

// possession is the time during which a process has the socket in its descriptor table.
type possession struct {
	a           *Actor
	from, until Moment // until 0: it still has the socket open
	leaving     Moment // when the step began by which it closed the socket
}

func (h possession) covers(at Moment) bool {
	return h.from-ClockSlack <= at && (h.until == 0 || at <= h.until+ClockSlack)
}

// step is a system call of an actor. No other actor does anything meanwhile.
type step struct {
	a           *Actor
	from, until Moment
}

// noteStep records a finished step and what it changed. It waits, so that the times of
// two steps differ by more than ClockSlack.
func (env *Env) noteStep(a *Actor, from, until Moment) {
	env.T.Helper()
	env.steps = append(env.steps, step{a, from, until})
	env.updatePossessions(from, until)
	env.verifyTables(a)
	for Now() < until+3*ClockSlack {
		time.Sleep(time.Duration(ClockSlack))
	}
}

// updatePossessions brings the possessions in line with the descriptor tables.
func (env *Env) updatePossessions(from, until Moment) {
	for _, s := range env.Sockets {
		for _, a := range env.actors {
			has := a.Table.Has(s)
			at := slices.IndexFunc(s.possessions, func(h possession) bool { return h.a == a && h.until == 0 })
			switch {
			case has && at < 0:
				s.possessions = append(s.possessions, possession{a: a, from: from})
			case !has && at >= 0:
				s.possessions[at].leaving, s.possessions[at].until = from, until
			}
		}
	}
}

// verifyTables compares the recorded descriptor tables with /proc.
func (env *Env) verifyTables(actors ...*Actor) {
	env.T.Helper()
	for _, a := range actors {
		if a.died != 0 {
			continue
		}
		open := env.openInodes(a)
		for _, s := range env.Sockets {
			if has := a.Table.Has(s) && a.FD(s) < inRing; s.inode != "" && has != open[s.inode] {
				env.T.Fatalf("the test is wrong: %s (%d) has %s open: %v, want %v", a.Name(), a.PID, s.What,
					open[s.inode], has)
			}
		}
	}
}

func (env *Env) openInodes(a *Actor) map[string]bool {
	// The directory of the leader is empty once the leader has exited.
	dir := fmt.Sprintf("/proc/%d/task/%d/fd", a.PID, a.tid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		env.T.Fatalf("read the descriptors of %s: %v", a.Name(), err)
	}
	open := map[string]bool{}
	for _, e := range entries {
		if fd, _ := strconv.Atoi(e.Name()); fd <= a.NoSocketsTo {
			continue
		}
		if target, err := os.Readlink(dir + "/" + e.Name()); err == nil {
			open[target] = true
		}
	}
	return open
}

// noteOperation is called before each call that makes a transition under the lock.
func (s *Socket) noteOperation(a *Actor, from Moment) {
	s.operations = append(s.operations, operation{a, from})
}

// noteRelease records an operation if this is the last close of the socket, which makes
// a transition.
func (env *Env) noteRelease(a *Actor, s *Socket, from Moment) {
	for _, other := range env.actors {
		if other.Table.Has(s) {
			return
		}
	}
	if !s.inFlight && !s.registered {
		s.noteOperation(a, from)
	}
}
