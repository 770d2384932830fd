package harness

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// template is an actor that belongs to no test. Actors that need no program of their
// own are forked from it, in a tenth of the time that a program takes to start.
var template struct {
	sync.Mutex
	*Actor
}

// StartActor starts a process in the namespace of the test. With one thread the process
// can make system calls only; see StartProgram.
func (env *Env) StartActor(name string, threads int) *Actor {
	env.T.Helper()
	if threads > 1 {
		return env.StartProgram(name, threads)
	}
	template.Lock()
	defer template.Unlock()
	if template.Actor == nil {
		template.Actor = env.execActor(1, nil)
	}
	template.env = env
	from := Now()
	// With CLONE_PARENT its parent is the test, the parent of the template.
	a := template.clone(clone3Args{Flags: unix.CLONE_PARENT}, 0)
	a.Table = newTable()
	a.reap = func() { _, _ = unix.Wait4(a.PID, nil, 0, nil) }
	template.separatePipes(a)
	a.enterNetns()
	env.addActor(a, name, from)
	return a
}

func (a *Actor) enterNetns() {
	var path string
	a.env.Netns.Do(func() { path = fmt.Sprintf("/proc/%d/task/%d/ns/net", unix.Getpid(), unix.Gettid()) })
	o := a.Order(unix.SYS_OPENAT)
	fd, err := o.do(0, o.Put(append([]byte(path), 0)), unix.O_RDONLY) // an absolute path ignores the directory
	a.env.must(a, unix.SYS_OPENAT, err)
	a.Must(unix.SYS_SETNS, uintptr(fd), unix.CLONE_NEWNET)
	a.CloseRaw(fd)
}

// StartProgram starts a process that can also run the operations of the Op constants.
func (env *Env) StartProgram(name string, threads int) *Actor {
	env.T.Helper()
	from := Now()
	var a *Actor
	env.Netns.Do(func() { a = env.execActor(threads, &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}) })
	env.addActor(a, name, from)
	return a
}

func (env *Env) execActor(threads int, attr *unix.SysProcAttr) *Actor {
	env.T.Helper()
	a := &Actor{env: env, Table: newTable()}
	var theirs []*os.File
	var numbers []string
	for i := range threads {
		th := &thread{actor: a}
		orders, answers := env.pipe(), env.pipe()
		th.orders, th.answers = orders[1], answers[0]
		theirs = append(theirs, os.NewFile(uintptr(orders[0]), "orders"), os.NewFile(uintptr(answers[1]), "answers"))
		numbers = append(numbers, fmt.Sprintf("%d,%d", 3+2*i, 4+2*i))
		a.Threads = append(a.Threads, th)
	}
	a.thread = a.Threads[0]
	cmd := exec.Command("/proc/self/exe")
	cmd.Args[0] = os.Args[0]
	// The Go runtime preempts by a signal, which would end a blocking call with EINTR.
	cmd.Env = []string{"GODEBUG=asyncpreemptoff=1", actorVariable + "=" + strings.Join(numbers, ",")}
	cmd.ExtraFiles, cmd.Stderr, cmd.SysProcAttr = theirs, os.Stderr, attr
	if err := cmd.Start(); err != nil {
		env.T.Fatalf("start an actor: %v", err)
	}
	for _, file := range theirs {
		file.Close()
	}
	a.reap = func() { _ = cmd.Wait() }
	a.PID = cmd.Process.Pid
	for _, th := range a.Threads {
		th.hello()
	}
	return a
}
