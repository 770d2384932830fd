package kernel_test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/tcpshift/tcpshift/internal/probe"
)

// score counts the transitions of a case, as often as they were told.
type score struct {
	all       int
	touched   int // of sockets that a process has had
	known     int // of those, with an owner
	wrong     int
	forgotten int // without an owner that the tracer had the means to know
}

// finish closes what is open, waits for the last event and holds every record of
// each tracer against the truth. It gives the first one's.
func (w *world) finish() []line {
	w.t.Helper()
	w.verify(w.actors...)
	for _, a := range w.actors {
		if a.died == 0 {
			for _, fd := range slices.Sorted(maps.Keys(a.table.slots)) {
				a.closeFD(uintptr(fd))
			}
		}
	}
	w.n.Settle(0)
	var first []line
	for i, lines := range w.collect() {
		w.tr = w.watches[i].tr
		w.judge(lines)
		if i == 0 {
			first = lines
		}
	}
	w.t.Logf("%d transitions told by %d tracers, %d of sockets in somebody's hands: %d with an owner, %d wrong, %d forgotten",
		w.score.all, len(w.watches), w.score.touched, w.score.known, w.score.wrong, w.score.forgotten)
	return first
}

// collect gives what each tracer has told of all that has happened so far.
func (w *world) collect() (told [][]line) {
	w.t.Helper()
	if w.watches[0].shared {
		if err := fence(w.n); err != nil {
			w.t.Fatalf("fence: %v", err)
		}
	}
	for _, v := range w.watches {
		lines, err := v.lines(w.n)
		if err != nil {
			w.t.Fatal(err)
		}
		told = append(told, lines)
	}
	return told
}

func (w *world) judge(lines []line) {
	w.t.Helper()
	for _, l := range lines {
		if os.Getenv("OWNER_DUMP") != "" {
			w.t.Log(l.raw)
		}
		if l.PeerPort == fencePort || l.Netns != w.n.Inode() {
			continue
		}
		if l.Type == "transition" {
			w.judgeTransition(l)
		}
		if l.Type == "connection" {
			if s := w.sockOf(l); s != nil && l.PID != nil {
				w.checkOwner(l, s)
			}
		}
	}
}

// has tells whether this kernel gives the tracer a feature, see probe.DetectFeatures.
func (w *world) has(feature string) bool {
	for _, f := range w.tr.probe.Features() {
		if f.Name == feature {
			return f.Err == nil
		}
	}
	return false
}

func (w *world) judgeTransition(l line) {
	w.t.Helper()
	w.score.all++
	s := w.sockOf(l)
	if s == nil {
		w.wrong(l, nil, "of a socket that nobody made")
		return
	}
	at := moment(l.Time.UnixNano())
	touched := slices.ContainsFunc(s.holds, func(h hold) bool { return h.from-clockSlack <= at })
	if touched {
		w.score.touched++
	}
	if l.PID == nil {
		w.checkUnknown(l, s, at)
	} else {
		if touched {
			w.score.known++
		}
		w.checkOwner(l, s)
	}
	w.checkRest(l, s, at)
}

// sockOf finds whose transition it is: by its cookie, or by its ports.
func (w *world) sockOf(l line) *sock {
	for _, s := range w.socks {
		if !s.byPorts && l.Conn != "" && s.conn == l.Conn {
			return s
		}
	}
	var first *sock
	for _, s := range w.socks {
		if !s.byPorts && l.Conn != "" || !mayBeOf(l, s) {
			continue
		}
		if first == nil {
			first = s
		}
		// Several may have these ports: the record is held against the one that suits it.
		if l.PID != nil && w.holderWith(int(*l.PID), s, moment(l.Time.UnixNano())) != nil {
			return s
		}
	}
	return first
}

// mayBeOf compares what is known on both sides.
func mayBeOf(l line, s *sock) bool {
	if l.Role != "" && s.role != "" && l.Role != s.role {
		return false
	}
	same := func(port, other uint16) bool { return port == 0 || other == 0 || port == other }
	if s.role == "listener" && l.PeerPort != 0 {
		return false
	}
	return same(l.LocalPort, s.local.Port()) && same(l.PeerPort, s.peer.Port())
}

func (w *world) wrong(l line, s *sock, format string, args ...any) {
	w.t.Helper()
	w.score.wrong++
	what := "a socket"
	if s != nil {
		what = s.what
	}
	w.t.Errorf("%s: %s\n%s%s", what, fmt.Sprintf(format, args...), l.raw, w.biography(s, moment(l.Time.UnixNano())))
}

// biography is who held the socket when, relative to the record.
func (w *world) biography(s *sock, at moment) string {
	if s == nil {
		return ""
	}
	var b strings.Builder
	rel := func(m moment) string {
		if m == 0 {
			return "on"
		}
		return fmt.Sprintf("%+dus", (m-at)/1000)
	}
	for _, h := range s.holds {
		fmt.Fprintf(&b, "    held by %s (%d) from %s to %s\n", h.a.name(), h.a.pid, rel(h.from), rel(h.until))
	}
	for _, l := range s.listeners {
		b.WriteString("  " + l.what + ":\n" + w.biography(l, at))
	}
	return b.String()
}

// checkOwner is about a record that names one.
func (w *world) checkOwner(l line, s *sock) {
	w.t.Helper()
	at := moment(l.Time.UnixNano())
	pid := int(*l.PID)
	a := w.holderWith(pid, s, at)
	if a == nil && l.Source == "listener" {
		a = listenerHeldBy(s, pid, at)
	}
	if a == nil {
		w.wrong(l, s, "process %d did not hold it, pid_source %s", pid, l.Source)
		return
	}
	if other := w.alive(pid, at); other != nil && other != a {
		w.wrong(l, s, "number %d is %s's by now", pid, other.name())
		return
	}
	w.checkSource(l, s, a, at)
	if !a.names.may(l.Comm, at) {
		w.wrong(l, s, "comm %q, but the process is called %v", l.Comm, a.names)
	}
	if l.Cgroup != "" && !a.cgroups.may(l.Cgroup, at) {
		w.wrong(l, s, "cgroup %q, but the process is in %v", l.Cgroup, a.cgroups)
	}
}

func heldBy(s *sock, pid int, at moment) *actor {
	for _, h := range s.holds {
		if h.a.pid == pid && h.covers(at) {
			return h.a
		}
	}
	return nil
}

// listenerHeldBy is about the listener in whose queue the socket is or was.
func listenerHeldBy(s *sock, pid int, at moment) *actor {
	for _, l := range s.listeners {
		if a := heldBy(l, pid, at); a != nil && (l.ended == 0 || at <= l.ended+clockSlack) {
			return a
		}
	}
	return nil
}

// holderWith also takes who closed the socket last, once nobody has it any more.
func (w *world) holderWith(pid int, s *sock, at moment) *actor {
	if a := heldBy(s, pid, at); a != nil {
		return a
	}
	if last := lastHolder(s, at); last != nil && last.pid == pid {
		return last
	}
	return nil
}

// lastHolder is nil while somebody has it, and before anybody had.
func lastHolder(s *sock, at moment) *actor {
	var last hold
	for _, h := range s.holds {
		if h.from-clockSlack > at {
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

func (w *world) alive(pid int, at moment) *actor {
	for _, a := range w.actors {
		if a.pid == pid && a.born+clockSlack < at && (a.died == 0 || at < a.died) {
			return a
		}
	}
	return nil
}

// checkSource holds pid_source to what bpf/event.h says that it means.
func (w *world) checkSource(l line, s *sock, a *actor, at moment) {
	w.t.Helper()
	switch l.Source {
	case "task":
		acting := func(st step) bool { return st.a == a && st.from-clockSlack <= at && at <= st.until+clockSlack }
		// A worker of a ring lets go of a socket a little after it has said so, up to 5.15.
		late := a.ring != 0 && lastHolder(s, at) == a
		if !late && !slices.ContainsFunc(w.steps, acting) {
			w.wrong(l, s, "pid_source task, but %s did nothing then", a.name())
		}
	case "stored":
		did := func(o operation) bool { return o.a == a && o.from-clockSlack <= at }
		if !slices.ContainsFunc(s.operations, did) {
			w.wrong(l, s, "pid_source stored, but %s had never made a transition of it", a.name())
		}
	case "accept":
		if len(s.listeners) == 0 || len(s.holds) == 0 || s.holds[0].a != a {
			w.wrong(l, s, "pid_source accept, but %s did not accept it", a.name())
		}
	case "scan":
		if !s.beforeTracing {
			w.wrong(l, s, "pid_source scan, but it is younger than the tracer")
		}
	case "listener":
	default:
		w.wrong(l, s, "pid_source %q", l.Source)
	}
}

// checkUnknown is about a record that names nobody: that is right only where the
// tracer had no means to know.
func (w *world) checkUnknown(l line, s *sock, at moment) {
	w.t.Helper()
	if l.Comm != "" || l.Source != "" {
		w.wrong(l, s, "no pid, but comm %q and pid_source %q", l.Comm, l.Source)
	}
	if !w.has(probe.SocketStorage) || !w.couldKnow(s, at) {
		return
	}
	for _, limit := range w.mayLack {
		if limit(l, s) {
			return
		}
	}
	w.score.forgotten++
	w.t.Errorf("%s: no owner\n%s%s", s.what, l.raw, w.biography(s, at))
}

// couldKnow: who has operated on the socket last has it still, or closed it as the
// last; or, where nobody has operated, who listens has the listener still.
func (w *world) couldKnow(s *sock, at moment) bool {
	if s.byPorts && (s.role == "server" || lastHolder(s, at) != nil) {
		return false // closing an MPTCP socket is no transition of its subflow
	}
	if a := w.knowable(s, at); a != nil {
		return s.isHeldBy(a, at) || lastHolder(s, at) == a && w.outlivesItsProcess(a)
	}
	if len(s.listeners) == 0 || s.beforeTracing || s.listeners[0].ended != 0 {
		return false
	}
	a := w.knowable(s.listeners[0], at)
	return a != nil && s.listeners[0].isHeldBy(a, at)
}

// knowable is whom the tracer has seen operate on the socket last, or else who alone
// had it when the scan came by.
func (w *world) knowable(s *sock, at moment) *actor {
	var last *actor
	for _, o := range s.operations {
		if o.from < at && o.from > w.traced {
			last = o.a
		}
	}
	if last != nil || !s.beforeTracing || !w.has(probe.SocketScan) {
		return last
	}
	for _, h := range s.holds {
		if h.from > w.traced || h.until != 0 && h.until < w.traced {
			continue
		}
		if last != nil {
			return nil
		}
		last = h.a
	}
	return last
}

// outlivesItsProcess: before Linux 6.2 no program can tell whether another process has
// the number of a dead one.
func (w *world) outlivesItsProcess(a *actor) bool {
	return a.died == 0 || !isBefore(w.t, 6, 2)
}

// isHeldBy is certain: neither just coming nor just going.
func (s *sock) isHeldBy(a *actor, at moment) bool {
	return slices.ContainsFunc(s.holds, func(h hold) bool {
		return h.a == a && h.from+clockSlack < at && (h.until == 0 || at < h.leaving-clockSlack)
	})
}

// checkRest is what is known of every socket, whoever has it.
func (w *world) checkRest(l line, s *sock, at moment) {
	w.t.Helper()
	if len(s.uids) > 0 && (l.UID == nil || !s.uids.may(int(*l.UID), at)) {
		w.wrong(l, s, "uid is not one of %v", s.uids)
	}
	if l.Role != s.role && (l.Role != "" || !s.beforeTracing && (w.has(probe.SocketStorage) || showsRole(l))) {
		w.wrong(l, s, "role %q, want %q", l.Role, s.role)
	}
}

// showsRole: by itself, without memory of what was before.
func showsRole(l line) bool {
	return slices.ContainsFunc([]string{l.Old, l.New}, func(s string) bool { return s == "SYN_SENT" || s == "LISTEN" })
}
