package trace

import (
	"slices"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/process"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Processes finds out what processes are; [*process.Resolver] is one. Its methods do not wait, except Finish.
type Processes interface {
	// Request asks for a process. It reports false if it cannot take more requests now.
	Request(q process.Request) bool
	// Answers returns what has been found since the last call.
	Answers() []process.Answer
	// Finish is Answers after all requests are answered, or limit is over.
	Finish(limit time.Duration) []process.Answer
	// NotifyAnswers sets wake, which is called when Answers has something new, from any goroutine.
	NotifyAnswers(wake func())
}

const (
	// maxOwners bounds the owners that are kept, in each of two generations.
	maxOwners = 2048
	// ownerRecheck is how long an owner is trusted to be the process that it was.
	ownerRecheck = 10 * time.Second
	// repeatProcess is the time after which a process is described again.
	repeatProcess = time.Hour
	// lastProcesses bounds the wait for /proc at the end.
	lastProcesses = 100 * time.Millisecond
)

// owners are the processes that records of the outputs name, and which outputs have described them. All
// outputs with process records share it, and those whose schema describes the owner on every record. It is
// for the loop's goroutine.
type owners struct {
	processes Processes
	wall      func(time.Duration) time.Time
	writers   []*recordWriter // with process records, by index

	recent      [256]*owner // by the last bits of the pid: the owners of most events
	young, aged map[uint32]*owner
	serial      uint64        // of the last request
	period      uint32        // counts ownerRecheck
	now, next   time.Duration // since the start: of the last turn, and when the next period begins
}

// owner is a process that was named.
type owner struct {
	tcp.Process
	found  bool          // the process lived when it was looked for
	lines  lineProcess   // for the records that describe their owner
	shares uint32        // another user whose sockets it was found to have; 0: there was none
	serial uint64        // of the last request; 0: there was none
	asked  uint32        // period of the last request
	user   uint32        // of the newest socket of another user than root; 0: there was none
	waits  bool          // it is not answered
	states []description // by the index of the output
}

// description is what one output has written about an owner.
type description struct {
	writtenIn uint64 // epoch of the output; 0: nothing
	named     bool   // a record names it, and it is not described yet
}

func newOwners(processes Processes, wall func(time.Duration) time.Time) *owners {
	return &owners{processes: processes, wall: wall, young: make(map[uint32]*owner), aged: make(map[uint32]*owner), period: 1, next: ownerRecheck}
}

// addOwners makes the outputs that write process records describe the owners that their records name.
func (l *loop) addOwners() {
	if l.Processes == nil {
		return
	}
	o := newOwners(l.Processes, l.clock.wall)
	for _, w := range l.outs.writers {
		if w.selected[record.ProcessType] {
			o.add(w)
		}
	}
	l.owners, l.outs.owners = o, nil
	if slices.ContainsFunc(l.outs.writers, (*recordWriter).describesOwners) {
		l.outs.owners = o
	}
	l.Processes.NotifyAnswers(l.Source.Wake)
}

// add makes w describe the owners that its records name.
func (o *owners) add(w *recordWriter) {
	w.owners, w.ownerIndex = o, len(o.writers)
	w.namesAll = !w.transitions && !w.connections && !w.selects("alert")
	o.writers = append(o.writers, w)
	w.epoch = 1
}

// beginTurn takes the time since the start, and describes what has been found.
func (o *owners) beginTurn(now time.Duration) {
	o.now = now
	if now >= o.next {
		o.period++
		o.next = now + ownerRecheck
	}
	for _, w := range o.writers {
		w.epoch = 1 + w.stream.Begun() + uint64(now/repeatProcess)
	}
	o.take(o.processes.Answers())
}

// finish describes what can still be found.
func (o *owners) finish() { o.take(o.processes.Finish(lastProcesses)) }

// name notes that a record of w names a process, in an event at a time (CLOCK_BOOTTIME). uid is that of the
// socket; 0 if it is not known.
func (o *owners) name(w *recordWriter, pid, uid uint32, comm *tcp.Comm, cgroup *tcp.Cgroup, at time.Duration) {
	p := o.named(pid)
	if p.states[w.ownerIndex].writtenIn == w.epoch && p.asked == o.period && p.Comm == *comm && p.Cgroup == cgroup && (uid == p.user || uid == 0) {
		return
	}
	if uid != 0 && uid != p.user {
		p.takeUser(uid)
	}
	o.update(w, p, comm, cgroup, at)
}

// named returns the owner with a pid, which is in recent then.
func (o *owners) named(pid uint32) *owner {
	slot := &o.recent[pid%uint32(len(o.recent))]
	if p := *slot; p != nil && p.PID == pid {
		return p
	}
	*slot = o.find(pid)
	return *slot
}

// known returns the owner with a pid, or nil. One that is named often may be in recent only.
func (o *owners) known(pid uint32) *owner {
	if p := o.recent[pid%uint32(len(o.recent))]; p != nil && p.PID == pid {
		return p
	}
	if p := o.young[pid]; p != nil {
		return p
	}
	return o.aged[pid]
}

// find returns the owner with a pid, which is new if it was not kept.
func (o *owners) find(pid uint32) *owner {
	p := o.young[pid]
	if p != nil {
		return p
	}
	if p = o.known(pid); p == nil {
		p = &owner{Process: tcp.Process{PID: pid}, states: make([]description, len(o.writers))}
	}
	if len(o.young) >= maxOwners {
		o.young, o.aged = o.aged, o.young
		clear(o.young)
	}
	o.young[pid] = p
	return p
}

// update takes what an event shows of an owner, asks for what it does not show, and describes the owner if that
// is known.
func (o *owners) update(w *recordWriter, p *owner, comm *tcp.Comm, cgroup *tcp.Cgroup, at time.Duration) {
	o.refresh(p, comm, cgroup, at)
	p.states[w.ownerIndex].named = true
	o.describe(p)
}

// refresh takes what an event shows of an owner, and asks for what it does not show.
func (o *owners) refresh(p *owner, comm *tcp.Comm, cgroup *tcp.Cgroup, at time.Duration) {
	if p.Comm != *comm { // it has called execve(), or is another process
		p.Comm, p.asked, p.found, p.waits, p.lines = *comm, 0, false, false, lineProcess{}
		p.forget()
	}
	if cgroup != nil && p.Cgroup != cgroup {
		if p.Cgroup == nil || *p.Cgroup != *cgroup {
			p.forget()
		}
		p.Cgroup = cgroup
	}
	if p.asked != o.period && !p.waits && o.processes.Request(process.Request{PID: p.PID, UID: p.user, At: at, Serial: o.serial + 1}) {
		o.serial++
		p.serial, p.asked, p.waits = o.serial, o.period, true
	}
}

// takeUser takes the user of a new socket. Another user's process may have the pid now, with the same name. A
// socket of root's shows nothing: processes that have given up their privileges keep those.
func (p *owner) takeUser(uid uint32) {
	p.user = uid
	if !p.found || uid != p.UID && uid != p.shares {
		p.asked, p.lines = 0, lineProcess{}
	}
}

// forget makes all outputs describe the owner again, once they name it.
func (p *owner) forget() {
	for i := range p.states {
		p.states[i].writtenIn = 0
	}
}

// describe writes the owner to the outputs that name it and have not described it, once its process is known.
func (o *owners) describe(p *owner) {
	if p.waits || p.asked == 0 {
		return
	}
	for _, w := range o.writers {
		s := &p.states[w.ownerIndex]
		if s.named && s.writtenIn != w.epoch && p.found && !w.process(&p.Process) {
			continue // there is no room: when it is named again
		}
		if s.named {
			*s = description{writtenIn: w.epoch}
		}
	}
}

// take takes answers.
func (o *owners) take(answers []process.Answer) {
	for i := range answers {
		a := &answers[i]
		p := o.known(a.Request.PID)
		if p == nil || p.serial != a.Request.Serial {
			continue
		}
		p.waits = false
		if p.differs(a) {
			p.forget()
		}
		if p.found = a.Found; a.Found {
			comm, cgroup := p.Comm, p.Cgroup
			p.Process = a.Process
			p.Comm, p.Cgroup, p.Started = comm, cgroup, o.wall(a.Process.StartedAt)
			p.shares = a.Request.UID
			p.lines.confirm(&p.Process, o.now)
		}
		o.describe(p)
	}
}

// differs reports whether an answer is about another process, or about one that has changed.
func (p *owner) differs(a *process.Answer) bool {
	return a.Found != p.found || a.Found && (a.Process.Exe != p.Exe || a.Process.UID != p.UID ||
		absolute(a.Process.StartedAt-p.StartedAt) > process.Tick)
}

func absolute(d time.Duration) time.Duration { return max(d, -d) }

// process writes a process record, also if the output has stalled, unless its reserve is used up. It
// reports whether it has.
func (w *recordWriter) process(p *tcp.Process) bool {
	if !w.stream.HasRoom() {
		return false
	}
	w.stream.Lines = w.numbered().Process(w.stream.Lines, &record.Process{Time: time.Now(), Process: *p})
	return true
}

// nameOwner notes that a record of this output names the owner of t. With namesAll it notes every owner that
// the selection lets pass.
func (w *recordWriter) nameOwner(t *tcp.Transition) {
	if t.Owner.Source != tcp.PIDUnknown && (!w.namesAll || w.selection == nil || w.selection.Transition(t)) {
		w.owners.name(w, t.Owner.PID, t.UID, &t.Owner.Comm, t.Cgroup, t.Monotonic)
	}
}

// nameCulprit notes that an alert of this output names a process.
func (w *recordWriter) nameCulprit(a *detect.Alert) {
	if c := &a.Culprit; c.Known && c.PID != 0 {
		w.owners.name(w, c.PID, 0, &c.Comm, c.Cgroup, a.Monotonic)
	}
}
