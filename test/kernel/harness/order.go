package harness

import (
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// answerTimeout bounds the wait for an answer, in milliseconds.
const answerTimeout = 60_000

// thread is one executor of an actor, seen from the test.
type thread struct {
	actor           *Actor
	tid             int
	base            uintptr // address of its payload
	orders, answers int     // the test's ends of the pipes
	Theirs          [2]int  // the actor's ends
	gone            bool
	OwnTable        bool // it has a descriptor table of its own
	abi             *abi // how it makes system calls; nil: as this test binary does
}

// Order is a system call for a thread to make.
type Order struct {
	thread *thread
	msg    message
	used   uintptr
}

// Order returns an order for a system call, or for one of the Op constants. Put adds
// what its arguments point to, Send sends it, Wait returns its result.
func (th *thread) Order(call uintptr) *Order {
	if call >= OpConnect && th.actor.forked {
		th.actor.env.T.Helper()
		th.actor.env.T.Fatal("a forked actor can make system calls only: start it with StartProgram")
	}
	return &Order{thread: th, msg: message{call: call}}
}

// Put copies b into the payload and returns its address in the actor.
func (o *Order) Put(b []byte) uintptr {
	at := o.used
	if copy(o.msg.payload[at:], b) < len(b) {
		o.thread.actor.env.T.Fatalf("payload of %d bytes is full", len(o.msg.payload))
	}
	o.used = (at + uintptr(len(b)) + 15) &^ 15
	return o.thread.base + at
}

// got returns size bytes at an address that Put returned, after the call was made.
func (o *Order) got(address uintptr, size int) []byte {
	at := address - o.thread.base
	return o.msg.payload[at : at+uintptr(size)]
}

// Send sends the order to the thread and does not wait for the answer.
func (o *Order) Send(args ...uintptr) {
	t := o.thread.actor.env.T
	t.Helper()
	copy(o.msg.args[:], args)
	o.translate()
	if n, err := unix.Write(o.thread.orders, bytesOf(&o.msg)); n != int(messageSize) {
		t.Fatalf("send an order to %s: wrote %d bytes: %v", o.thread.actor.Name(), n, err)
	}
}

// Wait returns the result of the call, or -1 and its errno.
func (o *Order) Wait() (int, error) {
	t := o.thread.actor.env.T
	t.Helper()
	if err := o.thread.receive(&o.msg); err != nil {
		t.Fatalf("receive the answer of %s (%d) to system call %d: %v", o.thread.actor.Name(), o.thread.actor.PID, o.msg.call, err)
	}
	if o.msg.errno != 0 {
		return -1, unix.Errno(o.msg.errno)
	}
	return int(o.msg.result), nil
}

// receive reads one message from the thread's pipe.
func (th *thread) receive(m *message) error {
	ready := []unix.PollFd{{Fd: int32(th.answers), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(ready, answerTimeout)
		if err == unix.EINTR {
			continue
		}
		if n == 0 {
			return fmt.Errorf("no answer within %d ms", answerTimeout)
		}
		n, err = unix.Read(th.answers, bytesOf(m))
		if n != int(messageSize) {
			return fmt.Errorf("read %d bytes: %v", n, err) //nolint:errorlint // for a person
		}
		return nil
	}
}

func (o *Order) do(args ...uintptr) (int, error) {
	o.thread.actor.env.T.Helper()
	o.Send(args...)
	return o.Wait()
}

// Try makes a system call whose arguments are all numbers.
func (th *thread) Try(call uintptr, args ...uintptr) (int, error) {
	th.actor.env.T.Helper()
	return th.Order(call).do(args...)
}

// Must is Try for a call that must succeed.
func (th *thread) Must(call uintptr, args ...uintptr) int {
	th.actor.env.T.Helper()
	result, err := th.Try(call, args...)
	th.actor.env.must(th.actor, call, err)
	return result
}

// hello waits for the first message of the thread, which contains the address of its
// payload.
func (th *thread) hello() {
	th.actor.env.T.Helper()
	var m message
	if err := th.receive(&m); err != nil {
		th.actor.env.T.Fatalf("start of an actor: no first message: %v", err)
	}
	th.tid, th.base = int(m.args[helloTID]), m.args[helloBase]
	th.Theirs = [2]int{int(m.args[helloOrders]), int(m.args[helloAnswers])}
}

func bytesOf[T any](v *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))
}

// RawSockaddr encodes an address as the kernel's struct sockaddr_in or sockaddr_in6.
func RawSockaddr(a netip.AddrPort) []byte {
	port := a.Port()<<8 | a.Port()>>8 // network byte order; amd64 and arm64 are little-endian
	if a.Addr().Is4() {
		return bytesOf(&unix.RawSockaddrInet4{Family: unix.AF_INET, Port: port, Addr: a.Addr().As4()})
	}
	return bytesOf(&unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: port, Addr: a.Addr().As16()})
}

func (env *Env) pipe() [2]int {
	env.T.Helper()
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		env.T.Fatalf("pipe2: %v", err)
	}
	return ends
}

// addActor adds a process whose executors run to the environment, and names it.
func (env *Env) addActor(a *Actor, name string, from Moment) {
	env.T.Helper()
	a.born = from
	env.actors = append(env.actors, a)
	a.names.add(from, Now(), ReadComm(a.PID))
	a.Cgroups.add(from, Now(), cgroupOf(a.PID))
	if name != "" {
		a.Rename(name)
	}
}
