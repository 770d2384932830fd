package harness

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An actor is a process that makes the system calls it is asked for, one at a
// time, so that a test decides step by step who holds which socket. It is this
// test binary, started again. Its threads each sit at a desk: two pipes, on which
// orders come in and answers go out. A desk knows nothing but raw system calls
// and allocates nothing, so that it goes on in the child after a bare fork.

// actorVariable tells a process that it is an actor, and where its desks' pipes
// are: "3,4" for one thread, "3,4,5,6" for two.
const actorVariable = "TCPSHIFT_ACTOR"

// message is an order, and comes back as its answer. It is below PIPE_BUF, so
// that a pipe takes it whole.
type message struct {
	call    uintptr // number of the system call
	args    [6]uintptr
	result  uintptr
	errno   uintptr
	payload [1976]byte // what arguments point to
}

const messageSize = unsafe.Sizeof(message{})

// In an answer to no order, which is the first, args say who is there.
const (
	helloBase = iota // the payload's address in the actor
	helloTID
	helloOrders
	helloAnswers
)

type executor struct {
	orders, answers uintptr
	forked          bool // barely: there is no Go runtime behind it any more
	message         message
}

// Not on a stack: an address in here stays what it is, and is the same in a fork.
var executors [8]executor

// init runs before any test and ends the process: an actor is no test.
func init() {
	pipes := os.Getenv(actorVariable)
	if pipes == "" {
		return
	}
	count := strings.Count(pipes, ",")/2 + 1
	for i := range count {
		rest, d := "", &executors[i]
		if n, _ := fmt.Sscanf(pipes, "%d,%d,%s", &d.orders, &d.answers, &rest); n < 2 {
			panic(actorVariable + "=" + pipes)
		}
		pipes = rest
		d.orders, d.answers = moveAbove(d.orders), moveAbove(d.answers)
	}
	// No collection, which would wait for threads that sit at their desks or are gone.
	debug.SetGCPercent(-1)
	runtime.GOMAXPROCS(count + 4)
	for i := 1; i < count; i++ {
		go func() {
			runtime.LockOSThread()
			executors[i].serve()
		}()
	}
	executors[0].serve() // the main thread: during init it runs nothing else
}

// controlFrom is where an actor's pipes lie in its table, so that its sockets have
// the numbers that they have in any other process.
const controlFrom = 900

func moveAbove(fd uintptr) uintptr {
	if fd >= controlFrom {
		return fd
	}
	moved, _, errno := syscall.RawSyscall(unix.SYS_FCNTL, fd, unix.F_DUPFD, controlFrom)
	if errno != 0 {
		panic(errno)
	}
	_ = syscall.Close(int(fd))
	return moved
}

// serve ends the process when the test's end of the pipe is gone.
//
//go:nosplit
//go:norace
func (d *executor) serve() {
	d.hello()
	for d.awaitOrder(); d.transfer(unix.SYS_READ, d.orders); d.awaitOrder() {
		m := &d.message
		if m.call >= OpConnect {
			m.result, m.errno = runOperation(m)
		} else {
			m.result, m.errno = rawCall(m.call, &m.args)
		}
		if m.call == unix.SYS_CLONE3 && m.errno == 0 && m.result == 0 {
			// In the child; the kernel has looked at two arguments only.
			d.orders, d.answers, d.forked = m.args[2], m.args[3], true
			d.hello()
			continue
		}
		if !d.transfer(unix.SYS_WRITE, d.answers) {
			break
		}
	}
	_, _, _ = syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
}

//go:nosplit
//go:norace
func (d *executor) hello() {
	m := &d.message
	m.args[helloBase] = uintptr(unsafe.Pointer(&m.payload))
	m.args[helloTID], _, _ = syscall.RawSyscall(unix.SYS_GETTID, 0, 0, 0)
	m.args[helloOrders], m.args[helloAnswers] = d.orders, d.answers
	m.errno = 0
	d.transfer(unix.SYS_WRITE, d.answers)
}

// awaitOrder returns when there is an order, or at any time in a bare fork. Whoever
// waits for long tells the runtime, which else looks after this thread a hundred times
// a second: emulated, that takes a hundredth of a processor.
//
//go:nosplit
//go:norace
func (d *executor) awaitOrder() {
	if d.forked {
		return
	}
	ready, long := unix.PollFd{Fd: int32(d.orders), Events: unix.POLLIN}, unix.Timespec{Nsec: 20e6}
	n, _, e := syscall.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&ready)), 1, uintptr(unsafe.Pointer(&long)), 0, 0, 0)
	if n == 0 && e == 0 {
		_, _, _ = syscall.Syscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&ready)), 1, 0, 0, 0, 0)
	}
}

//go:nosplit
//go:norace
func (d *executor) transfer(call, fd uintptr) bool {
	for {
		n, _, errno := syscall.RawSyscall(call, fd, uintptr(unsafe.Pointer(&d.message)), messageSize)
		if errno != syscall.EINTR {
			return n == messageSize && errno == 0
		}
	}
}

//go:nosplit
//go:norace
func rawCall(call uintptr, a *[6]uintptr) (uintptr, errno) {
	result, _, e := syscall.RawSyscall6(call, a[0], a[1], a[2], a[3], a[4], a[5])
	return result, uintptr(e)
}
