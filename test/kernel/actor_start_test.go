package kernel_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// template is an actor in no story, from which those are forked that need no program of
// their own: that takes a tenth of the time that a program takes to start.
var template struct {
	sync.Mutex
	*actor
}

// startActor starts a process with so many threads in the namespace of the test. One
// with a single thread makes system calls and nothing else.
func (w *world) startActor(name string, threads int) *actor {
	w.t.Helper()
	if threads > 1 {
		return w.startProgram(name, threads)
	}
	template.Lock()
	defer template.Unlock()
	if template.actor == nil {
		template.actor = w.execActor(1, nil)
	}
	template.w = w
	from := now()
	// A brother of the template: its parent is the test.
	a := template.clone(clone3Args{Flags: unix.CLONE_PARENT}, 0)
	a.table = newTable()
	a.reap = func() { _, _ = unix.Wait4(a.pid, nil, 0, nil) }
	template.part(a)
	a.enterNetns()
	w.admit(a, name, from)
	return a
}

func (a *actor) enterNetns() {
	var path string
	a.w.n.Do(func() { path = fmt.Sprintf("/proc/%d/task/%d/ns/net", unix.Getpid(), unix.Gettid()) })
	o := a.order(unix.SYS_OPENAT)
	fd, err := o.do(0, o.put(append([]byte(path), 0)), unix.O_RDONLY) // absolute: of no directory
	a.w.must(a, unix.SYS_OPENAT, err)
	a.must(unix.SYS_SETNS, uintptr(fd), unix.CLONE_NEWNET)
	a.closeRaw(fd)
}

// startProgram starts one that can do more than system calls.
func (w *world) startProgram(name string, threads int) *actor {
	w.t.Helper()
	from := now()
	var a *actor
	w.n.Do(func() { a = w.execActor(threads, &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}) })
	w.admit(a, name, from)
	return a
}

func (w *world) execActor(threads int, attr *unix.SysProcAttr) *actor {
	w.t.Helper()
	a := &actor{w: w, table: newTable()}
	var theirs []*os.File
	var numbers []string
	for i := range threads {
		th := &thread{a: a}
		orders, answers := w.pipe(), w.pipe()
		th.orders, th.answers = orders[1], answers[0]
		theirs = append(theirs, os.NewFile(uintptr(orders[0]), "orders"), os.NewFile(uintptr(answers[1]), "answers"))
		numbers = append(numbers, fmt.Sprintf("%d,%d", 3+2*i, 4+2*i))
		a.threads = append(a.threads, th)
	}
	a.thread = a.threads[0]
	cmd := exec.Command("/proc/self/exe")
	cmd.Args[0] = os.Args[0]
	// Preemption is by signal, and would end a blocking call with EINTR.
	cmd.Env = []string{"GODEBUG=asyncpreemptoff=1", actorVariable + "=" + strings.Join(numbers, ",")}
	cmd.ExtraFiles, cmd.Stderr, cmd.SysProcAttr = theirs, os.Stderr, attr
	if err := cmd.Start(); err != nil {
		w.t.Fatalf("start an actor: %v", err)
	}
	for _, file := range theirs {
		file.Close()
	}
	a.reap = func() { _ = cmd.Wait() }
	a.pid = cmd.Process.Pid
	for _, th := range a.threads {
		th.hello()
	}
	return a
}
