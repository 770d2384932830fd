package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// Actor is one process. Tests give orders to its main thread, or to another thread by
// its index. The harness records its names, its cgroups and the sockets in its
// descriptor table, with times.
type Actor struct {
	*thread // the main thread
	Threads []*thread
	env     *Env
	PID     int
	born    Moment
	died    Moment // 0 while it runs
	parent  *Actor // nil if the test started it
	forked  bool   // it makes system calls only, see thread.Order
	reap    func() // waits for its exit, and frees its pid

	Table *table
	// NoSocketsTo is a descriptor number: those up to it are not sockets and do not
	// change.
	NoSocketsTo int
	inbox       int     // a unix socket to which descriptors are sent; 0 until there is one
	ring        uintptr // the descriptor of its io_uring
	uid         int
	names       timeline[string]
	Cgroups     timeline[string]
}

// table is a descriptor table, which several processes may share.
type table struct {
	Slots map[int]Slot
}

// Slot is what a descriptor refers to.
type Slot struct {
	s       *Socket
	cloexec bool
}

func newTable() *table {
	return &table{Slots: map[int]Slot{}}
}

// Has reports whether any descriptor refers to the socket.
func (t *table) Has(s *Socket) bool {
	for _, at := range t.Slots {
		if at.s == s {
			return true
		}
	}
	return false
}

// Name returns the name that the process has now.
func (a *Actor) Name() string {
	if len(a.names) == 0 {
		return "new actor"
	}
	return a.names[len(a.names)-1].Value
}

// Rename changes the name with PR_SET_NAME. On the main thread it renames the process,
// on another thread only that thread.
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

// SetFileLimit sets RLIMIT_NOFILE.
func (a *Actor) SetFileLimit(count uint64) {
	a.env.T.Helper()
	limit := unix.Rlimit{Cur: count, Max: count}
	if err := unix.Prlimit(a.PID, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		a.env.T.Fatalf("prlimit: %v", err)
	}
}

// Pin lets the threads of the process run on these CPUs only.
func (a *Actor) Pin(cpus *unix.CPUSet) {
	a.env.T.Helper()
	for _, th := range a.Threads {
		if err := unix.SchedSetaffinity(th.tid, cpus); err != nil {
			a.env.T.Fatalf("sched_setaffinity: %v", err)
		}
	}
}

// ReadComm returns the name of a process as /proc shows it.
func ReadComm(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return strings.TrimSuffix(string(b), "\n")
}

// clone3Args is struct clone_args in its second version (Linux 5.5).
type clone3Args struct {
	Flags, PidFD, ChildTID, ParentTID, ExitSignal, Stack, StackSize, TLS, SetTID, SetTIDSize uint64
}

// Fork makes a child with a bare clone3: it has all descriptors of its parent, and no
// Go runtime. A pid other than 0 is the number that the child gets.
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

// clone makes a process whose executor runs.
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
	// The number in the parent's pid namespace, also if the child has one of its own.
	child.PID, child.tid = number, number
	return child
}

// separatePipes closes in parent and child the pipes of the other one.
func (th *thread) separatePipes(child *Actor) {
	th.actor.env.T.Helper()
	child.CloseRaw(th.Theirs[:]...)
	th.CloseRaw(child.Theirs[:]...)
}

// controlPipes makes the pipes of a child. The test opens its ends through /proc.
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
			env.T.Fatalf("open the pipe of an actor: %v", err)
		}
		theirs[i] = th.Must(unix.SYS_FCNTL, uintptr(its), unix.F_DUPFD, controlFrom)
		th.CloseRaw(mine, its)
	}
	return ours, theirs
}

// CloseRaw closes descriptors that are not sockets of the test.
func (th *thread) CloseRaw(fds ...int) {
	th.actor.env.T.Helper()
	for _, fd := range fds {
		th.Must(unix.SYS_CLOSE, uintptr(fd))
	}
}

// Exec replaces the program of the process by this test binary under another file name,
// which becomes the name of the process. The new program is an actor as well.
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
	th.hello() // a failed execve would answer the order instead, and fail here
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

// Kill ends the process with SIGKILL.
func (a *Actor) Kill() {
	a.env.T.Helper()
	a.terminate(func() {
		if err := unix.Kill(a.PID, unix.SIGKILL); err != nil {
			a.env.T.Fatalf("kill %d: %v", a.PID, err)
		}
	})
}

// Exit ends the process with exit_group; all its sockets are still open then.
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
	// The parent has exited, so the test is the parent now: see NewEnv.
	if _, err := unix.Wait4(a.PID, nil, 0, nil); err != nil {
		a.env.T.Fatalf("wait for %d: %v", a.PID, err)
	}
}

// ExitThread ends this thread only, not the process.
func (th *thread) ExitThread() {
	th.actor.env.T.Helper()
	th.Order(unix.SYS_EXIT).Send(0)
	th.gone = true
	th.actor.env.await("end of a thread", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/stat", th.actor.PID, th.tid))
		// A leader that has exited stays as a zombie. The state stands after the name.
		return err != nil || strings.HasPrefix(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " Z")
	})
	if th.actor.thread == th {
		th.actor.thread = th.actor.Threads[1]
	}
}

// await polls for a condition that the kernel brings about by itself.
func (env *Env) await(what string, done func() bool) {
	env.T.Helper()
	deadline := time.Now().Add(tcplab.RetransmissionLimit)
	for !done() {
		if time.Now().After(deadline) {
			env.T.Fatalf("waited %v for: %s", tcplab.RetransmissionLimit, what)
		}
		time.Sleep(200 * time.Microsecond)
	}
}
