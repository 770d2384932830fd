package kernel_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// readLinkForEver is what lsof, ss -p and fuser do with /proc/PID/fd: for a moment
// the kernel refers to the file, and who gives the last reference back closes it.
func readLinkForEver(path []byte) (uintptr, errno) {
	var to [256]byte
	for {
		_, _, _ = syscall.RawSyscall6(unix.SYS_READLINKAT, 0, uintptr(unsafe.Pointer(&path[0])),
			uintptr(unsafe.Pointer(&to)), unsafe.Sizeof(to), 0, 0)
	}
}

// takeError is what a program does that polls a socket for its error, as fast as it can.
func takeError(fd uintptr) (uintptr, errno) {
	var value, size int32
	for value == 0 {
		size = 4
		_, _, e := syscall.RawSyscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_ERROR,
			uintptr(unsafe.Pointer(&value)), uintptr(unsafe.Pointer(&size)), 0)
		if e != 0 {
			return 0, uintptr(e)
		}
	}
	return uintptr(value), 0
}

// fill writes until the socket takes no more.
func fill(fd uintptr) (uintptr, errno) {
	for {
		_, _, e := syscall.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&pushed)), unsafe.Sizeof(pushed),
			unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT, 0, 0)
		if e != 0 {
			return 0, 0
		}
	}
}

// pushAndShutDownMany is pushMany, but both sides are shut down before the close.
func pushAndShutDownMany(port uintptr, count int) (uintptr, errno) {
	for i := range count {
		fd, e := connectOne(port, i)
		if e != 0 {
			return 0, e
		}
		for range 2 + i%3 {
			_, _, _ = syscall.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&pushed)), unsafe.Sizeof(pushed),
				unix.MSG_NOSIGNAL, 0, 0)
		}
		_, _, _ = syscall.RawSyscall(unix.SYS_SHUTDOWN, fd, unix.SHUT_RDWR, 0)
		_, _, _ = syscall.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
	}
	return uintptr(count), 0
}

// lsof -p in a loop beside a process that opens and closes connections: it never has
// any of them in its table of descriptors.
func TestStorm_ProcFDReader(t *testing.T) {
	w := newStormWorld(t)
	st := &storm{server: w.startProgram("storm-server", 1), client: w.startProgram("storm-client", 1)}
	reader := w.startProgram("reader", 1)
	listener := st.server.listen(everywhere(7000))
	reads, writes := st.credits()
	connections := shareOfStorm(t, 5000, 300)
	fd := st.client.must(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM, 0) // the lowest free number
	st.client.closeRaw(fd)
	o := reader.order(opReadLinks)
	path := fmt.Appendf(nil, "/proc/%d/fd/%d\x00", st.client.pid, fd)
	o.put(path)
	o.send(uintptr(len(path)))
	accept, connect := st.server.order(opAccept), st.client.order(opConnect)
	accept.send(st.server.fd(listener), uintptr(connections), uintptr(writes))
	connect.send(7000, uintptr(connections), uintptr(reads))
	for _, o := range []*order{accept, connect} {
		if n, err := o.wait(); n != connections {
			t.Fatalf("%d connections: %v", n, err)
		}
	}
	reader.kill()
	st.server.close(listener)
	w.n.Settle(0)
	// Which of the two closes is chance; of what the reader closed nobody is the owner.
	all, known, wrong, named := st.tally(w, w.collect()[0])
	t.Logf("%d transitions, %d with an owner, %d wrong%s", all, known, wrong, named)
}

// The kernel sets the error of a socket that is reset or destroyed before its state,
// and between the two it may have much to throw away; meanwhile a process that polls
// for the error takes it off the socket. Without it the end must not look like one
// that somebody brought about under the lock.
func TestStorm_SocketErrorReader(t *testing.T) {
	rounds := shareOfStorm(t, 60, 20)
	for _, how := range []string{"destroyed", "reset by the peer"} {
		t.Run(how, func(t *testing.T) {
			w := newStormWorld(t)
			server, client := w.startActor("a-server", 1), w.startActor("a-client", 2)
			destroyer := w.startActor("destroyer", 1)
			w.n.Sysctl("net.ipv4.tcp_wmem", "4096 16777216 16777216")
			listener := server.listen(at(7000))
			mine := map[string]bool{}
			for range rounds {
				c := client.dial(at(7000))
				s := server.accept(listener)
				mine[c.conn] = true
				client.must(opFill, client.fd(c))
				poll := client.threads[1].order(opTakeError)
				poll.send(client.fd(c))
				time.Sleep(time.Millisecond)
				if how == "destroyed" {
					destroyer.destroy(c)
				} else {
					server.lingerZero(s)
					server.close(s)
				}
				if _, err := poll.wait(); err != nil {
					t.Fatal(err)
				}
				client.close(c)
				server.close(s)
			}
			server.close(listener)
			w.n.Settle(0)
			ended, taken, wrong := 0, 0, 0
			want := map[string]string{"destroyed": "abort", "reset by the peer": "reset_received"}[how]
			for _, l := range w.collect()[0] {
				if !mine[l.Conn] || l.Type != "connection" {
					continue
				}
				ended++
				if l.Error == "" {
					taken++
				}
				if l.PID != nil && int(*l.PID) == destroyer.pid || l.ClosedBy != "" && l.ClosedBy != want {
					if wrong++; wrong <= 3 {
						t.Errorf("want %s, and not by the destroyer: %s", want, l.raw)
					}
				}
			}
			t.Logf("%d ends, of which %d without the error: %d wrong", ended, taken, wrong)
		})
	}
}

// A process shuts both sides down, so that nothing of a close is to be seen on the
// socket any more, and closes it, while others look at it.
func TestStorm_DumpOfShutDownSockets(t *testing.T) {
	w := newStormWorld(t)
	for i := range 3 {
		w.startProgram(fmt.Sprintf("dumper-%d", i), 1).lookForEver()
	}
	checkStorm(t, w, blow(w, stormConnections(t)/5, opHangUp, opPushShutdown))
}
