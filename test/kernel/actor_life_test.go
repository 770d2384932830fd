package kernel_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// actor is one process. What it does is asked of its main thread, or of one of
// its threads by name; what it is, and what is in its table of descriptors, is
// kept along, dated.
type actor struct {
	*thread // the main one
	threads []*thread
	w       *world
	pid     int
	born    moment
	died    moment // 0: it lives
	parent  *actor // nil: the test
	forked  bool   // and no program: it makes system calls only
	reap    func() // waits for its end and gives its pid back

	table *table
	// Descriptors with numbers up to this one are no sockets, and stay what they are.
	noSocketsTo int
	mail        int     // a unix socket to which descriptors are sent; 0: none yet
	ring        uintptr // descriptor of its io_uring
	uid         int
	names       history[string]
	cgroups     history[string]
}

// table is a table of descriptors; several processes may share one.
type table struct {
	slots map[int]slot
}

type slot struct {
	s       *sock
	cloexec bool
}

func newTable() *table {
	return &table{slots: map[int]slot{}}
}

func (t *table) has(s *sock) bool {
	for _, at := range t.slots {
		if at.s == s {
			return true
		}
	}
	return false
}

func (a *actor) name() string {
	if len(a.names) == 0 {
		return "new actor"
	}
	return a.names[len(a.names)-1].value
}

// rename is what a program calls to show another name; called by the main thread
// it renames the process, by another one only that thread.
func (th *thread) rename(name string) {
	th.a.w.t.Helper()
	from := now()
	o := th.order(unix.SYS_PRCTL)
	_, err := o.do(unix.PR_SET_NAME, o.put(append([]byte(name), 0)))
	th.a.w.must(th.a, unix.SYS_PRCTL, err)
	if th.tid == th.a.pid {
		th.a.names.add(from, now(), name)
	}
}

func (a *actor) setFileLimit(count uint64) {
	a.w.t.Helper()
	limit := unix.Rlimit{Cur: count, Max: count}
	if err := unix.Prlimit(a.pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		a.w.t.Fatalf("prlimit: %v", err)
	}
}

// pin has all threads of the process run on these CPUs only.
func (a *actor) pin(cpus *unix.CPUSet) {
	a.w.t.Helper()
	for _, th := range a.threads {
		if err := unix.SchedSetaffinity(th.tid, cpus); err != nil {
			a.w.t.Fatalf("sched_setaffinity: %v", err)
		}
	}
}

func readComm(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return strings.TrimSuffix(string(b), "\n")
}

// clone3Args is struct clone_args up to its second version (Linux 5.5).
type clone3Args struct {
	Flags, PidFD, ChildTID, ParentTID, ExitSignal, Stack, StackSize, TLS, SetTID, SetTIDSize uint64
}

// fork is a bare fork: the child has all that the parent has open. With pid it is
// given that number.
func (th *thread) fork(name string, flags uint64, pid int) *actor {
	th.a.w.t.Helper()
	a, w := th.a, th.a.w
	from := now()
	child := th.clone(clone3Args{Flags: flags, ExitSignal: uint64(unix.SIGCHLD)}, pid)
	child.parent, child.uid, child.table = a, a.uid, a.table
	if flags&unix.CLONE_FILES == 0 {
		child.table = newTable()
		for fd, at := range a.table.slots {
			child.table.slots[fd] = at
		}
	}
	child.reap = child.reapForked
	w.admit(child, "", from)
	w.reconcile(from, now())
	if flags&unix.CLONE_FILES == 0 {
		th.part(child)
	}
	if name != "" {
		child.rename(name)
	}
	return child
}

// clone makes a process whose main thread is at its desk.
func (th *thread) clone(arg clone3Args, pid int) *actor {
	a, w := th.a, th.a.w
	w.t.Helper()
	c := &thread{}
	child := &actor{w: w, thread: c, threads: []*thread{c}, forked: true}
	c.a = child
	ours, theirs := th.controlPipes()
	c.orders, c.answers = ours[0], ours[1]
	o := th.order(unix.SYS_CLONE3)
	if pid != 0 {
		number := int32(pid)
		arg.SetTID, arg.SetTIDSize = uint64(o.put(bytesOf(&number))), 1
	}
	number, err := o.do(o.put(bytesOf(&arg)), unsafe.Sizeof(arg), uintptr(theirs[0]), uintptr(theirs[1]))
	w.must(a, unix.SYS_CLONE3, err)
	child.hello()
	// As the parent sees it, also where the child is in a pid namespace of its own.
	child.pid, child.tid = number, number
	return child
}

// part leaves each of the two its own pipes only.
func (th *thread) part(child *actor) {
	th.a.w.t.Helper()
	child.closeRaw(th.theirs[:]...)
	th.closeRaw(child.theirs[:]...)
}

// controlPipes makes a child's pipes: the test reaches its ends by way of /proc.
func (th *thread) controlPipes() (ours, theirs [2]int) {
	w := th.a.w
	w.t.Helper()
	for i, mode := range []int{unix.O_WRONLY, unix.O_RDONLY} {
		o := th.order(unix.SYS_PIPE2)
		at := o.put(make([]byte, 8))
		_, err := o.do(at, 0)
		w.must(th.a, unix.SYS_PIPE2, err)
		ends := *(*[2]int32)(unsafe.Pointer(&o.got(at, 8)[0]))
		mine, its := int(ends[1-i]), int(ends[i])
		ours[i], err = unix.Open(fmt.Sprintf("/proc/%d/fd/%d", th.a.pid, mine), mode|unix.O_CLOEXEC, 0)
		if err != nil {
			w.t.Fatalf("open an actor's pipe: %v", err)
		}
		theirs[i] = th.must(unix.SYS_FCNTL, uintptr(its), unix.F_DUPFD, controlFrom)
		th.closeRaw(mine, its)
	}
	return ours, theirs
}

// closeRaw closes what is no socket of the test's.
func (th *thread) closeRaw(fds ...int) {
	th.a.w.t.Helper()
	for _, fd := range fds {
		th.must(unix.SYS_CLOSE, uintptr(fd))
	}
}

// exec makes the process another program, which happens to be an actor as well.
// Its name is that of the file.
func (th *thread) exec(name string) {
	a, w := th.a, th.a.w
	w.t.Helper()
	self, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	path := filepath.Join(w.t.TempDir(), name)
	if err := os.Symlink(self, path); err != nil {
		w.t.Fatal(err)
	}
	o := th.order(unix.SYS_EXECVE)
	file := o.put(append([]byte(path), 0))
	argv := [...]uintptr{file, 0}
	envp := [...]uintptr{
		o.put([]byte("GODEBUG=asyncpreemptoff=1\x00")),
		o.put(fmt.Appendf(nil, "%s=%d,%d\x00", actorVariable, th.theirs[0], th.theirs[1])),
		0,
	}
	from := now()
	o.send(file, o.put(bytesOf(&argv)), o.put(bytesOf(&envp)))
	for _, other := range a.threads {
		other.gone = other != th
	}
	th.hello() // or the order comes back with an error, which makes no sense as one
	a.thread, a.threads, a.forked = th, []*thread{th}, false
	for fd, at := range a.table.slots {
		if at.cloexec {
			delete(a.table.slots, fd)
			w.noteRelease(a, at.s, from)
		}
	}
	until := now()
	if got := readComm(a.pid); got != name {
		w.t.Fatalf("after exec the process is called %q, want %q", got, name)
	}
	a.names.add(from, until, name)
	w.stepped(a, from, until)
}

// kill is kill -9; exit is exit_group, with everything open.
func (a *actor) kill() {
	a.w.t.Helper()
	a.end(func() {
		if err := unix.Kill(a.pid, unix.SIGKILL); err != nil {
			a.w.t.Fatalf("kill %d: %v", a.pid, err)
		}
	})
}

func (a *actor) exit() {
	a.w.t.Helper()
	a.end(func() { a.order(unix.SYS_EXIT_GROUP).send(0) })
}

func (a *actor) end(how func()) {
	a.w.t.Helper()
	from := now()
	how()
	a.reap()
	a.died = now()
	shared := a.table
	a.table = newTable()
	for _, at := range shared.slots {
		a.w.noteRelease(a, at.s, from)
	}
	a.w.stepped(a, from, a.died)
}

func (a *actor) reapForked() {
	a.w.t.Helper()
	if a.parent.died == 0 && !a.parent.gone {
		a.parent.must(unix.SYS_WAIT4, uintptr(a.pid), 0, 0, 0)
		return
	}
	// Its parent being gone it is the test's, see newWorld.
	if _, err := unix.Wait4(a.pid, nil, 0, nil); err != nil {
		a.w.t.Fatalf("wait for %d: %v", a.pid, err)
	}
}

// exitThread ends only this thread, the process goes on.
func (th *thread) exitThread() {
	th.a.w.t.Helper()
	th.order(unix.SYS_EXIT).send(0)
	th.gone = true
	th.a.w.await("end of a thread", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/stat", th.a.pid, th.tid))
		// The leader stays as a zombie; the state comes after the name.
		return err != nil || strings.HasPrefix(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " Z")
	})
	if th.a.thread == th {
		th.a.thread = th.a.threads[1]
	}
}

// await polls a condition that the kernel brings about by itself.
func (w *world) await(what string, done func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(actorPatience * time.Millisecond)
	for !done() {
		if time.Now().After(deadline) {
			w.t.Fatalf("no %s", what)
		}
		time.Sleep(200 * time.Microsecond)
	}
}
