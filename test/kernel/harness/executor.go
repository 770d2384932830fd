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

// An actor is a process that makes the system calls that a test asks for, one at a
// time, so that a test decides step by step which process has which socket open. It is
// this test binary, started again. Each of its threads runs an executor: orders come in
// through one pipe, answers go out through another. An executor makes raw system calls
// only and allocates nothing, so that it also works in the child of a bare fork.

// actorVariable, in the environment, makes a process an actor. It lists the descriptors
// of the pipes of its executors: "3,4" for one thread, "3,4,5,6" for two.
const actorVariable = "TCPSHIFT_ACTOR"

// message is an order, and comes back as the answer to it. It is shorter than PIPE_BUF,
// so a pipe takes it whole.
type message struct {
	call    uintptr // number of the system call
	args    [6]uintptr
	result  uintptr
	errno   uintptr
	payload [1976]byte // what pointers in args point to
}

const messageSize = unsafe.Sizeof(message{})

// The first message of an executor is not an answer. Its args are these values.
const (
	helloBase = iota // address of the payload in the actor
	helloTID
	helloOrders
	helloAnswers
)

type executor struct {
	orders, answers uintptr
	forked          bool // by a bare fork: the process has no Go runtime
	message         message
}

// A global and no local variable: its address is the same in the child of a fork.
var executors [8]executor

// init runs before any test. In an actor it never returns.
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
	// No garbage collection: it would wait for threads that block in a read or have
	// exited.
	debug.SetGCPercent(-1)
	runtime.GOMAXPROCS(count + 4)
	for i := 1; i < count; i++ {
		go func() {
			runtime.LockOSThread()
			executors[i].serve()
		}()
	}
	executors[0].serve() // on the main thread, which runs nothing else during init
}

// controlFrom is the lowest descriptor of an actor's pipes. Sockets get the same low
// numbers as in any other process.
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

// serve ends the process when the test has closed its end of the pipe.
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
			// In the child. The kernel has read the first two arguments only.
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

// awaitOrder returns when an order has come, and in the child of a bare fork at once. A
// thread that waits for more than 20 ms enters the system call through the Go runtime,
// which would otherwise preempt it a hundred times a second: in an emulated guest that
// costs 1 % of a processor.
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
	if call&int80Bit != 0 {
		result := int80(call&^int80Bit, a)
		if result < 0 && result > -4096 {
			return ^uintptr(0), uintptr(-result)
		}
		return uintptr(result), 0
	}
	if call&x32Bit != 0 {
		call = call&^x32Bit | 1<<30
	}
	result, _, e := syscall.RawSyscall6(call, a[0], a[1], a[2], a[3], a[4], a[5])
	return result, uintptr(e)
}
