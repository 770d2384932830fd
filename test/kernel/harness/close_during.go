package harness

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// AwaitCall returns when the thread waits in this system call, with this first argument.
func (th *thread) AwaitCall(call, first uintptr) {
	th.actor.env.T.Helper()
	path := fmt.Sprintf("/proc/%d/task/%d/syscall", th.actor.PID, th.tid)
	want := fmt.Sprintf("%d %#x ", call, first)
	th.actor.env.await("a thread in system call "+want, func() bool {
		line, err := os.ReadFile(path)
		return err == nil && strings.HasPrefix(string(line), want)
	})
}

// CloseDuring closes the process's last descriptor of the socket while the thread is in a
// call that uses it; end makes the call return. It returns the result of the call, which
// is the step that makes the transition.
func (th *thread) CloseDuring(s *Socket, o *Order, args []uintptr, end func()) int {
	a, env := th.actor, th.actor.env
	env.T.Helper()
	from := Now()
	o.Send(args...)
	th.AwaitCall(o.msg.call, args[0])
	a.Close(s)
	end()
	result, err := o.Wait()
	env.must(a, o.msg.call, err)
	env.noteStep(a, from, Now())
	return result
}

// Munmap removes the mapping of a socket, which may drop the last reference to its file.
func (th *thread) Munmap(s *Socket, address, size uintptr) {
	th.actor.env.T.Helper()
	from := Now()
	s.noteOperation(th.actor, from)
	_, err := th.Try(unix.SYS_MUNMAP, address, size)
	th.actor.env.must(th.actor, unix.SYS_MUNMAP, err)
	th.actor.env.noteStep(th.actor, from, Now())
}

// Accepted records the connection that an accept() of this thread returned.
func (th *thread) Accepted(listener *Socket, fd int, from Moment) *Socket {
	th.actor.env.T.Helper()
	return th.accepted(listener, fd, from)
}
