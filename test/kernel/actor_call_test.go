package kernel_test

import (
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// actorPatience bounds the wait for an answer, in milliseconds.
const actorPatience = 60_000

// thread is one desk of an actor, seen from the test.
type thread struct {
	a               *actor
	tid             int
	base            uintptr // address of its payload
	orders, answers int     // the test's ends of the pipes
	theirs          [2]int  // the actor's
	gone            bool
	apart           bool // it has a table of descriptors of its own
}

// order is a system call for a thread to make.
type order struct {
	th   *thread
	msg  message
	used uintptr
}

func (th *thread) order(call uintptr) *order {
	if call >= opConnect && th.a.forked {
		th.a.w.t.Helper()
		th.a.w.t.Fatal("a forked actor makes system calls only: start it with startProgram")
	}
	return &order{th: th, msg: message{call: call}}
}

// put lays b into the payload and gives its address in the actor.
func (o *order) put(b []byte) uintptr {
	at := o.used
	if copy(o.msg.payload[at:], b) < len(b) {
		o.th.a.w.t.Fatalf("payload of %d bytes is full", len(o.msg.payload))
	}
	o.used = (at + uintptr(len(b)) + 15) &^ 15
	return o.th.base + at
}

// got is what lies at an address that put gave, once the call is made.
func (o *order) got(address uintptr, size int) []byte {
	at := address - o.th.base
	return o.msg.payload[at : at+uintptr(size)]
}

func (o *order) send(args ...uintptr) {
	t := o.th.a.w.t
	t.Helper()
	copy(o.msg.args[:], args)
	if n, err := unix.Write(o.th.orders, bytesOf(&o.msg)); n != int(messageSize) {
		t.Fatalf("order to %s: wrote %d bytes: %v", o.th.a.name(), n, err)
	}
}

func (o *order) wait() (int, error) {
	t := o.th.a.w.t
	t.Helper()
	if err := o.th.receive(&o.msg); err != nil {
		t.Fatalf("answer of %s (%d) to system call %d: %v", o.th.a.name(), o.th.a.pid, o.msg.call, err)
	}
	if o.msg.errno != 0 {
		return -1, unix.Errno(o.msg.errno)
	}
	return int(o.msg.result), nil
}

// receive takes one message off the thread's pipe.
func (th *thread) receive(m *message) error {
	ready := []unix.PollFd{{Fd: int32(th.answers), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(ready, actorPatience)
		if err == unix.EINTR {
			continue
		}
		if n == 0 {
			return fmt.Errorf("none after %d ms", actorPatience)
		}
		n, err = unix.Read(th.answers, bytesOf(m))
		if n != int(messageSize) {
			return fmt.Errorf("read %d bytes: %v", n, err) //nolint:errorlint // for a person
		}
		return nil
	}
}

func (o *order) do(args ...uintptr) (int, error) {
	o.th.a.w.t.Helper()
	o.send(args...)
	return o.wait()
}

// try makes a system call whose arguments are all numbers.
func (th *thread) try(call uintptr, args ...uintptr) (int, error) {
	th.a.w.t.Helper()
	return th.order(call).do(args...)
}

func (th *thread) must(call uintptr, args ...uintptr) int {
	th.a.w.t.Helper()
	result, err := th.try(call, args...)
	th.a.w.must(th.a, call, err)
	return result
}

// hello waits for the thread to say where it is.
func (th *thread) hello() {
	th.a.w.t.Helper()
	var m message
	if err := th.receive(&m); err != nil {
		th.a.w.t.Fatalf("an actor did not come up: %v", err)
	}
	th.tid, th.base = int(m.args[helloTID]), m.args[helloBase]
	th.theirs = [2]int{int(m.args[helloOrders]), int(m.args[helloAnswers])}
}

func bytesOf[T any](v *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))
}

func rawSockaddr(a netip.AddrPort) []byte {
	port := a.Port()<<8 | a.Port()>>8 // network order, on both of our machines
	if a.Addr().Is4() {
		return bytesOf(&unix.RawSockaddrInet4{Family: unix.AF_INET, Port: port, Addr: a.Addr().As4()})
	}
	return bytesOf(&unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: port, Addr: a.Addr().As16()})
}

func (w *world) pipe() [2]int {
	w.t.Helper()
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		w.t.Fatalf("pipe2: %v", err)
	}
	return ends
}

// admit takes in a process whose threads are at their desks, and gives it its name.
func (w *world) admit(a *actor, name string, from moment) {
	w.t.Helper()
	a.born = from
	w.actors = append(w.actors, a)
	a.names.add(from, now(), readComm(a.pid))
	a.cgroups.add(from, now(), cgroupOf(a.pid))
	if name != "" {
		a.rename(name)
	}
}
