package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Actor is one process. What it does is asked of its main thread, or of one of
// its threads by name; what it is, and what is in its table of descriptors, is
// kept along, dated.
type Actor struct {
	*thread // the main one
	Threads []*thread
	env     *Env
	PID     int
	born    Moment
	died    Moment // 0: it lives
	parent  *Actor // nil: the test
	forked  bool   // and no program: it makes system calls only
	reap    func() // waits for its end and gives its pid back

	Table *table
	// Descriptors with numbers up to this one are no sockets, and stay what they are.
	NoSocketsTo int
	inbox       int     // a unix socket to which descriptors are sent; 0: none yet
	ring        uintptr // descriptor of its io_uring
	uid         int
	names       timeline[string]
	Cgroups     timeline[string]
}

// table is a table of descriptors; several processes may share one.
type table struct {
	Slots map[int]Slot
}

type Slot struct {
	s       *Socket
	cloexec bool
}

func newTable() *table {
	return &table{Slots: map[int]Slot{}}
}

func (t *table) Has(s *Socket) bool {
	for _, at := range t.Slots {
		if at.s == s {
			return true
		}
	}
	return false
}

func (a *Actor) Name() string {
	if len(a.names) == 0 {
		return "new actor"
	}
	return a.names[len(a.names)-1].Value
}

// Rename is what a program calls to show another name; called by the main thread
// it renames the process, by another one only that thread.
func (th *thread) Rename(name string) {
	th.actor.env.T.Helper()
	from := Now()
	o := th.Order(unix.SYS_PRCTL)
	_, err := o.do(unix.PR_SET_NAME, o.Put(append([]byte(name), 0)))
	th.actor.env.must(th.actor, unix.SYS_PRCTL, err)
	if th.tid == th.actor.PID {
		th.actor.names.add(from, Now(), name)
	}
}

func (a *Actor) SetFileLimit(count uint64) {
	a.env.T.Helper()
	limit := unix.Rlimit{Cur: count, Max: count}
	if err := unix.Prlimit(a.PID, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		a.env.T.Fatalf("prlimit: %v", err)
	}
}

// Pin has all threads of the process run on these CPUs only.
func (a *Actor) Pin(cpus *unix.CPUSet) {
	a.env.T.Helper()
	for _, th := range a.Threads {
		if err := unix.SchedSetaffinity(th.tid, cpus); err != nil {
			a.env.T.Fatalf("sched_setaffinity: %v", err)
		}
	}
}

func ReadComm(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return strings.TrimSuffix(string(b), "\n")
}

// clone3Args is struct clone_args up to its second version (Linux 5.5).
type clone3Args struct {
	Flags, PidFD, ChildTID, ParentTID, ExitSignal, Stack, StackSize, TLS, SetTID, SetTIDSize uint64
}

// Fork is a bare fork: the child has all that the parent has open. With pid it is
// given that number.
func (th *thread) Fork(name string, flags uint64, pid int) *Actor {
	th.actor.env.T.Helper()
	a, env := th.actor, th.actor.env
	from := Now()
	child := th.clone(clone3Args{Flags: flags, ExitSignal: uint64(unix.SIGCHLD)}, pid)
	child.parent, child.uid, child.Table = a, a.uid, a.Table
	if flags&unix.CLONE_FILES == 0 {
		child.Table = newTable()
		for fd, at := range a.Table.Slots {
			child.Table.Slots[fd] = at
		}
	}
	child.reap = child.reapForked
	env.addActor(child, "", from)
	env.updatePossessions(from, Now())
	if flags&unix.CLONE_FILES == 0 {
		th.separatePipes(child)
	}
	if name != "" {
		child.Rename(name)
	}
	return child
}

// clone makes a process whose main thread is at its desk.
func (th *thread) clone(arg clone3Args, pid int) *Actor {
	a, env := th.actor, th.actor.env
	env.T.Helper()
	c := &thread{}
	child := &Actor{env: env, thread: c, Threads: []*thread{c}, forked: true}
	c.actor = child
	ours, theirs := th.controlPipes()
	c.orders, c.answers = ours[0], ours[1]
	o := th.Order(unix.SYS_CLONE3)
	if pid != 0 {
		number := int32(pid)
		arg.SetTID, arg.SetTIDSize = uint64(o.Put(bytesOf(&number))), 1
	}
	number, err := o.do(o.Put(bytesOf(&arg)), unsafe.Sizeof(arg), uintptr(theirs[0]), uintptr(theirs[1]))
	env.must(a, unix.SYS_CLONE3, err)
	child.hello()
	// As the parent sees it, also where the child is in a pid namespace of its own.
	child.PID, child.tid = number, number
	return child
}

// separatePipes leaves each of the two its own pipes only.
func (th *thread) separatePipes(child *Actor) {
	th.actor.env.T.Helper()
	child.CloseRaw(th.Theirs[:]...)
	th.CloseRaw(child.Theirs[:]...)
}

// controlPipes makes a child's pipes: the test reaches its ends by way of /proc.
func (th *thread) controlPipes() (ours, theirs [2]int) {
	env := th.actor.env
	env.T.Helper()
	for i, mode := range []int{unix.O_WRONLY, unix.O_RDONLY} {
		o := th.Order(unix.SYS_PIPE2)
		at := o.Put(make([]byte, 8))
		_, err := o.do(at, 0)
		env.must(th.actor, unix.SYS_PIPE2, err)
		ends := *(*[2]int32)(unsafe.Pointer(&o.got(at, 8)[0]))
		mine, its := int(ends[1-i]), int(ends[i])
		ours[i], err = unix.Open(fmt.Sprintf("/proc/%d/fd/%d", th.actor.PID, mine), mode|unix.O_CLOEXEC, 0)
		if err != nil {
			env.T.Fatalf("open an actor's pipe: %v", err)
		}
		theirs[i] = th.Must(unix.SYS_FCNTL, uintptr(its), unix.F_DUPFD, controlFrom)
		th.CloseRaw(mine, its)
	}
	return ours, theirs
}

// CloseRaw closes what is no socket of the test's.
func (th *thread) CloseRaw(fds ...int) {
	th.actor.env.T.Helper()
	for _, fd := range fds {
		th.Must(unix.SYS_CLOSE, uintptr(fd))
	}
}

// Exec makes the process another program, which happens to be an actor as well.
// Its name is that of the file.
func (th *thread) Exec(name string) {
	a, env := th.actor, th.actor.env
	env.T.Helper()
	self, err := os.Executable()
	if err != nil {
		env.T.Fatal(err)
	}
	path := filepath.Join(env.T.TempDir(), name)
	if err := os.Symlink(self, path); err != nil {
		env.T.Fatal(err)
	}
	o := th.Order(unix.SYS_EXECVE)
	file := o.Put(append([]byte(path), 0))
	argv := [...]uintptr{file, 0}
	envp := [...]uintptr{
		o.Put([]byte("GODEBUG=asyncpreemptoff=1\x00")),
		o.Put(fmt.Appendf(nil, "%s=%d,%d\x00", actorVariable, th.Theirs[0], th.Theirs[1])),
		0,
	}
	from := Now()
	o.Send(file, o.Put(bytesOf(&argv)), o.Put(bytesOf(&envp)))
	for _, other := range a.Threads {
		other.gone = other != th
	}
	th.hello() // or the order comes back with an error, which makes no sense as one
	a.thread, a.Threads, a.forked = th, []*thread{th}, false
	for fd, at := range a.Table.Slots {
		if at.cloexec {
			delete(a.Table.Slots, fd)
			env.noteRelease(a, at.s, from)
		}
	}
	until := Now()
	if got := ReadComm(a.PID); got != name {
		env.T.Fatalf("after exec the process is called %q, want %q", got, name)
	}
	a.names.add(from, until, name)
	env.noteStep(a, from, until)
}

// Kill is kill -9; exit is exit_group, with everything open.
func (a *Actor) Kill() {
	a.env.T.Helper()
	a.terminate(func() {
		if err := unix.Kill(a.PID, unix.SIGKILL); err != nil {
			a.env.T.Fatalf("kill %d: %v", a.PID, err)
		}
	})
}

func (a *Actor) Exit() {
	a.env.T.Helper()
	a.terminate(func() { a.Order(unix.SYS_EXIT_GROUP).Send(0) })
}

func (a *Actor) terminate(how func()) {
	a.env.T.Helper()
	from := Now()
	how()
	a.reap()
	a.died = Now()
	shared := a.Table
	a.Table = newTable()
	for _, at := range shared.Slots {
		a.env.noteRelease(a, at.s, from)
	}
	a.env.noteStep(a, from, a.died)
}

func (a *Actor) reapForked() {
	a.env.T.Helper()
	if a.parent.died == 0 && !a.parent.gone {
		a.parent.Must(unix.SYS_WAIT4, uintptr(a.PID), 0, 0, 0)
		return
	}
	// Its parent being gone it is the test's, see newWorld.
	if _, err := unix.Wait4(a.PID, nil, 0, nil); err != nil {
		a.env.T.Fatalf("wait for %d: %v", a.PID, err)
	}
}

// ExitThread ends only this thread, the process goes on.
func (th *thread) ExitThread() {
	th.actor.env.T.Helper()
	th.Order(unix.SYS_EXIT).Send(0)
	th.gone = true
	th.actor.env.await("end of a thread", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/stat", th.actor.PID, th.tid))
		// The leader stays as a zombie; the state comes after the name.
		return err != nil || strings.HasPrefix(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " Z")
	})
	if th.actor.thread == th {
		th.actor.thread = th.actor.Threads[1]
	}
}

// await polls a condition that the kernel brings about by itself.
func (env *Env) await(what string, done func() bool) {
	env.T.Helper()
	deadline := time.Now().Add(answerTimeout * time.Millisecond)
	for !done() {
		if time.Now().After(deadline) {
			env.T.Fatalf("no %s", what)
		}
		time.Sleep(200 * time.Microsecond)
	}
}
