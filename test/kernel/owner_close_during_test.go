package kernel_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/kernel/harness"
)

// closeDuring is a connection of a process with three threads: one of them uses the
// socket while another one closes its descriptor.
func closeDuring(t *testing.T, use func(env *harness.Env, server *harness.Actor, s *harness.Socket, end func())) {
	t.Helper()
	harness.Run(t, func(env *harness.Env) {
		server, client := env.StartActor("server", 3), env.StartActor("client", 1)
		listener := server.Listen(harness.At(7000))
		c := client.Dial(harness.At(7000))
		s := server.Accept(listener)
		use(env, server, s, func() { client.Write(c, "x") })
		client.Close(c)
	})
}

// A thread is in a call on a socket while another thread closes its descriptor. The call
// drops the last reference to the file when it returns, and so closes the socket. The
// process owns the socket to the end.
func TestOwner_CloseDuringCall(t *testing.T) {
	t.Run("recvfrom", func(t *testing.T) {
		closeDuring(t, func(_ *harness.Env, server *harness.Actor, s *harness.Socket, end func()) {
			reader := server.Threads[2]
			o := reader.Order(unix.SYS_RECVFROM)
			reader.CloseDuring(s, o, []uintptr{server.FD(s), o.Put(make([]byte, 8)), 8, 0, 0, 0}, end)
		})
	})
	t.Run("read", func(t *testing.T) {
		closeDuring(t, func(_ *harness.Env, server *harness.Actor, s *harness.Socket, end func()) {
			reader := server.Threads[2]
			o := reader.Order(unix.SYS_READ)
			reader.CloseDuring(s, o, []uintptr{server.FD(s), o.Put(make([]byte, 8)), 8}, end)
		})
	})
	t.Run("recvfrom, the number is another socket's by then", func(t *testing.T) {
		closeDuring(t, func(env *harness.Env, server *harness.Actor, s *harness.Socket, end func()) {
			reader, fd := server.Threads[2], server.FD(s)
			o := reader.Order(unix.SYS_RECVFROM)
			reader.CloseDuring(s, o, []uintptr{fd, o.Put(make([]byte, 8)), 8, 0, 0, 0}, func() {
				other := server.Socket(harness.LoopbackAddr, unix.IPPROTO_TCP)
				if server.FD(other) != fd {
					env.T.Fatalf("the other socket has descriptor %d, want %d", server.FD(other), fd)
				}
				end()
			})
		})
	})
	t.Run("recvfrom, the number is another file's by then", func(t *testing.T) {
		closeDuring(t, func(env *harness.Env, server *harness.Actor, s *harness.Socket, end func()) {
			reader, fd := server.Threads[2], server.FD(s)
			o := reader.Order(unix.SYS_RECVFROM)
			reader.CloseDuring(s, o, []uintptr{fd, o.Put(make([]byte, 8)), 8, 0, 0, 0}, func() {
				if other := server.Must(unix.SYS_DUP, 0); other != int(fd) {
					env.T.Fatalf("the other file has descriptor %d, want %d", other, fd)
				}
				end()
			})
		})
	})
	t.Run("ppoll", func(t *testing.T) {
		closeDuring(t, func(_ *harness.Env, server *harness.Actor, s *harness.Socket, end func()) {
			poller := server.Threads[2]
			o := poller.Order(unix.SYS_PPOLL)
			fds := o.Put([]byte{byte(server.FD(s)), 0, 0, 0, unix.POLLIN, 0, 0, 0})
			poller.CloseDuring(s, o, []uintptr{fds, 1, 0, 0, 0}, end)
		})
	})
	t.Run("munmap", func(t *testing.T) {
		closeDuring(t, func(_ *harness.Env, server *harness.Actor, s *harness.Socket, _ func()) {
			const size = 1 << 16 // a multiple of every page size
			address := server.Must(unix.SYS_MMAP, 0, size, unix.PROT_READ, unix.MAP_SHARED, server.FD(s), 0)
			server.Close(s)
			server.Munmap(s, uintptr(address), size)
		})
	})
}

// A thread waits in accept() while another one closes the listener. The accept() closes
// it when it returns with a connection, and both belong to the process.
func TestOwner_CloseDuringAccept(t *testing.T) {
	harness.Run(t, func(env *harness.Env) {
		server, client := env.StartActor("server", 3), env.StartActor("client", 1)
		listener := server.Listen(harness.At(7000))
		acceptor := server.Threads[2]
		from := harness.Now()
		var c *harness.Socket
		fd := acceptor.CloseDuring(listener, acceptor.Order(unix.SYS_ACCEPT4), []uintptr{server.FD(listener), 0, 0, 0}, func() {
			c = client.Dial(harness.At(7000))
		})
		s := server.Accepted(listener, fd, from)
		client.Close(c)
		server.Read(s)
		server.Close(s)
	})
}
