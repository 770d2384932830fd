package harness

import (
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/tcpshift/tcpshift/internal/probe"
)

// ownerTally counts the transitions of a case, once for each tracer.
type ownerTally struct {
	All      int
	hadOwner int // of sockets that a process had open before
	known    int // those of hadOwner that name an owner
	wrong    int
	missing  int // those of hadOwner without an owner that the tracer could know
}

// Finish closes all sockets, waits for the last event and checks every record of each
// tracer. It returns the records of the first tracer.
func (env *Env) Finish() []Record {
	env.T.Helper()
	env.endSockets()
	return env.checkAll()
}

// endSockets closes all sockets, and waits for the last event.
func (env *Env) endSockets() {
	env.T.Helper()
	env.verifyTables(env.actors...)
	for _, a := range env.actors {
		if a.died == 0 {
			for _, fd := range slices.Sorted(maps.Keys(a.Table.Slots)) {
				a.CloseFD(uintptr(fd))
			}
		}
	}
	env.Netns.Settle(0)
}

// checkAll checks every record of each tracer. It returns the records of the first tracer.
func (env *Env) checkAll() []Record {
	env.T.Helper()
	var first []Record
	for i, lines := range env.Collect() {
		env.Tracer = env.Captures[i].Tracer
		env.check(lines)
		if i == 0 {
			first = lines
		}
	}
	env.T.Logf("%d transitions in records of %d tracers, %d of sockets that a process has had: %d with an owner, %d wrong, %d missing an owner",
		env.Tally.All, len(env.Captures), env.Tally.hadOwner, env.Tally.known, env.Tally.wrong, env.Tally.missing)
	return first
}

// Collect returns, for each tracer, all records of the namespace so far.
func (env *Env) Collect() (records [][]Record) {
	env.T.Helper()
	if env.Captures[0].shared {
		if err := fence(env.Netns); err != nil {
			env.T.Fatalf("connect to the fence port: %v", err)
		}
	}
	for _, c := range env.Captures {
		lines, err := c.records(env.Netns)
		if err != nil {
			env.T.Fatal(err)
		}
		records = append(records, lines)
	}
	return records
}

func (env *Env) check(lines []Record) {
	env.T.Helper()
	for _, l := range lines {
		if os.Getenv("OWNER_DUMP") != "" {
			env.T.Log(l.Raw)
		}
		if l.PeerPort == FencePort || l.Netns != env.Netns.Inode() {
			continue
		}
		if l.Type == "transition" {
			env.checkTransition(l)
		}
		if l.Type == "connection" {
			s := env.socketOf(l)
			if s != nil && l.PID != nil {
				env.checkOwner(l, s)
			}
			if s != nil {
				env.checkBytes(l, s)
			}
		}
	}
}

// checkBytes compares the bytes of a connection with what the processes wrote and read.
// What nothing has read may be there or not.
func (env *Env) checkBytes(l Record, s *Socket) {
	env.T.Helper()
	if l.Conn == "" || s.Conn != l.Conn {
		return // another socket may have the same ports
	}
	if l.Sent != s.written {
		env.wrong(l, s, "sent_bytes is %d, but the process has written %d", l.Sent, s.written)
	}
	if l.Received < s.read {
		env.wrong(l, s, "received_bytes is %d, but the process has read %d", l.Received, s.read)
	}
	for _, peer := range env.Sockets {
		if peer.Local == s.Peer && peer.Peer == s.Local && l.Received > peer.written {
			env.wrong(l, s, "received_bytes is %d, but the peer has written %d", l.Received, peer.written)
		}
	}
}

// Has reports whether the tracer has a feature on this kernel; see
// probe.DetectFeatures.
func (env *Env) Has(feature string) bool {
	for _, f := range env.Tracer.Probe.Features() {
		if f.Name == feature {
			return f.Err == nil
		}
	}
	return false
}

func (env *Env) checkTransition(l Record) {
	env.T.Helper()
	env.Tally.All++
	s := env.socketOf(l)
	if s == nil {
		env.wrong(l, nil, "the test made no such socket")
		return
	}
	at := Moment(l.Time.UnixNano())
	touched := slices.ContainsFunc(s.possessions, func(h possession) bool { return h.from-ClockSlack <= at })
	if touched {
		env.Tally.hadOwner++
	}
	if l.PID == nil {
		env.checkUnknown(l, s, at)
	} else {
		if touched {
			env.Tally.known++
		}
		env.checkOwner(l, s)
	}
	env.checkUserAndRole(l, s, at)
}

// socketOf returns the socket of a record, by its cookie or by its ports.
func (env *Env) socketOf(l Record) *Socket {
	for _, s := range env.Sockets {
		if !s.ByPorts && l.Conn != "" && s.Conn == l.Conn {
			return s
		}
	}
	var first *Socket
	for _, s := range env.Sockets {
		if !s.ByPorts && l.Conn != "" || !mayBelongTo(l, s) {
			continue
		}
		if first == nil {
			first = s
		}
		// Several sockets may have these ports: take the one that the named process had
		// open.
		if l.PID != nil && env.rightProcess(int(*l.PID), s, Moment(l.Time.UnixNano())) != nil {
			return s
		}
	}
	return first
}

// mayBelongTo compares the role and the ports that both the record and the socket have.
func mayBelongTo(l Record, s *Socket) bool {
	if l.Role != "" && s.Role != "" && l.Role != s.Role {
		return false
	}
	same := func(port, other uint16) bool { return port == 0 || other == 0 || port == other }
	if s.Role == "listener" && l.PeerPort != 0 {
		return false
	}
	return same(l.LocalPort, s.Local.Port()) && same(l.PeerPort, s.Peer.Port())
}

func (env *Env) wrong(l Record, s *Socket, format string, args ...any) {
	env.T.Helper()
	env.Tally.wrong++
	what := "a socket"
	if s != nil {
		what = s.What
	}
	env.T.Errorf("%s: %s\n%s%s", what, fmt.Sprintf(format, args...), l.Raw, env.describePossessions(s, Moment(l.Time.UnixNano())))
}

// checkOwner checks a record that names an owner.
func (env *Env) checkOwner(l Record, s *Socket) {
	env.T.Helper()
	at := Moment(l.Time.UnixNano())
	pid := int(*l.PID)
	a := env.rightProcess(pid, s, at)
	if a == nil && l.Source == "listener" {
		a = listenerOpenIn(s, pid, at)
	}
	if a == nil {
		env.wrong(l, s, "process %d did not have it open, pid_source %s", pid, l.Source)
		return
	}
	if other := env.alive(pid, at); other != nil && other != a {
		env.wrong(l, s, "at that time pid %d was %s", pid, other.Name())
		return
	}
	env.checkSource(l, s, a, at)
	if !a.names.mayBe(l.Comm, at) {
		env.wrong(l, s, "comm %q, but the process is called %v", l.Comm, a.names)
	}
	if l.Cgroup != "" && !a.Cgroups.mayBe(l.Cgroup, at) {
		env.wrong(l, s, "cgroup %q, but the process is in %v", l.Cgroup, a.Cgroups)
	}
}

// checkSource checks that pid_source is what bpf/event.h documents.
func (env *Env) checkSource(l Record, s *Socket, a *Actor, at Moment) {
	env.T.Helper()
	switch l.Source {
	case "task":
		acting := func(st step) bool { return st.a == a && st.from-ClockSlack <= at && at <= st.until+ClockSlack }
		// Up to 5.15 a worker of an io_uring drops its reference a little after it
		// reports the result.
		late := a.ring != 0 && lastCloser(s, at) == a
		if !late && !slices.ContainsFunc(env.steps, acting) {
			env.wrong(l, s, "pid_source task, but %s made no system call then", a.Name())
		}
	case "stored":
		did := func(o operation) bool { return o.a == a && o.from-ClockSlack <= at }
		if !slices.ContainsFunc(s.operations, did) {
			env.wrong(l, s, "pid_source stored, but %s had never made a transition of it", a.Name())
		}
	case "accept":
		if len(s.Listeners) == 0 || len(s.possessions) == 0 || s.possessions[0].a != a {
			env.wrong(l, s, "pid_source accept, but %s did not accept it", a.Name())
		}
	case "read":
		if !slices.ContainsFunc(s.reads, func(st step) bool { return st.a == a && st.from-ClockSlack <= at }) {
			env.wrong(l, s, "pid_source read, but %s had never read from it", a.Name())
		}
	case "scan":
		if !s.BeforeTracing {
			env.wrong(l, s, "pid_source scan, but it is younger than the tracer")
		}
	case "listener":
		if reader := env.firstReader(s, at); reader != nil {
			env.wrong(l, s, "pid_source listener, but %s has read from it", reader.Name())
		}
	default:
		env.wrong(l, s, "unknown pid_source %q", l.Source)
	}
}

// firstReader returns the process that read from the socket first, if it still has the
// socket open and the tracer notices reads.
func (env *Env) firstReader(s *Socket, at Moment) *Actor {
	if !env.Has(probe.ReadHook) || env.Has(probe.AcceptHook) || s.ByPorts || len(s.reads) == 0 {
		return nil
	}
	if first := s.reads[0]; first.until+ClockSlack < at && s.isOpenIn(first.a, at) {
		return first.a
	}
	return nil
}

// checkUserAndRole checks uid and role, which do not depend on the owner.
func (env *Env) checkUserAndRole(l Record, s *Socket, at Moment) {
	env.T.Helper()
	if isEarlyChild(l) { // it may be another child of this listener, and has the listener's user
		at = 0
	}
	if len(s.uids) > 0 && (l.UID == nil || !s.uids.mayBe(int(*l.UID), at)) {
		env.wrong(l, s, "uid is not one of %v", s.uids)
	}
	if l.Role != s.Role && (l.Role != "" || !s.BeforeTracing && (env.Has(probe.SocketStorage) || showsRole(l))) {
		env.wrong(l, s, "role %q, want %q", l.Role, s.Role)
	}
}

// isEarlyChild reports whether the record is of a child that has neither a cookie nor a peer yet
// (expect.Row.EmptyChild), so it may be any child of its listener.
func isEarlyChild(l Record) bool {
	return l.Conn == "" && l.PeerPort == 0 && l.Old == "LISTEN" && l.New == "SYN_RECV"
}

// showsRole reports whether the states alone show the role.
func showsRole(l Record) bool {
	return slices.ContainsFunc([]string{l.Old, l.New}, func(s string) bool { return s == "SYN_SENT" || s == "LISTEN" })
}
