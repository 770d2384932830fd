package harness

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Ways to read from a socket other than Read.

const uringOpRecv = 27

// UringFixedFile is IOSQE_FIXED_FILE: the file of a request is that of Register.
const UringFixedFile = 1 << 0

// UringRead waits for data and reads it through the io_uring. A read of a registered file
// does not show the process, because no descriptor refers to the file.
func (th *thread) UringRead(s *Socket, flags uint8) {
	env := th.actor.env
	env.T.Helper()
	fd := int32(0)
	if flags&UringFixedFile == 0 {
		fd = int32(th.actor.FD(s))
	}
	const buffer, size = 1024, 512 // in the payload, behind the request
	from := Now()
	n, err := th.byRing(&uringSQE{Opcode: uringOpRecv, Flags: flags, FD: fd, Addr: uint64(th.base + buffer), Len: size}, nil)
	env.must(th.actor, unix.SYS_RECVFROM, err)
	if flags&UringFixedFile != 0 {
		s.read += uint64(n)
		env.noteStep(th.actor, from, Now())
		return
	}
	th.noteRead(s, n, from)
}

// Splice waits for data and moves it to a pipe, which it then closes.
func (th *thread) Splice(s *Socket) {
	env := th.actor.env
	env.T.Helper()
	o := th.Order(unix.SYS_PIPE2)
	at := o.Put(make([]byte, 8))
	_, err := o.do(at, 0)
	env.must(th.actor, unix.SYS_PIPE2, err)
	ends := *(*[2]int32)(unsafe.Pointer(&o.got(at, 8)[0]))
	from := Now()
	n := th.Must(unix.SYS_SPLICE, th.actor.FD(s), 0, uintptr(ends[1]), 0, 512, 0)
	th.noteRead(s, n, from)
	th.CloseRaw(int(ends[0]), int(ends[1]))
}

func (th *thread) noteRead(s *Socket, n int, from Moment) {
	th.actor.env.T.Helper()
	s.read += uint64(max(n, 0))
	if n > 0 {
		s.reads = append(s.reads, step{th.actor, from, Now()})
	}
	th.actor.env.noteStep(th.actor, from, Now())
}
