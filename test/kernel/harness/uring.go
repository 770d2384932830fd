package harness

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/kernelmatrix/expect"
)

// include/uapi/linux/io_uring.h
const (
	UringSetupSQPoll   = 1 << 1
	uringEnterEvents   = 1 << 0
	uringEnterWakeup   = 1 << 1
	uringRegisterFiles = 2
	uringOffSQ         = 0
	uringOffSQEs       = 0x10000000
	uringOpAccept      = 13
	uringOpConnect     = 16
	uringOpClose       = 19
	uringOpShutdown    = 34
	UringAsync         = 1 << 4 // IOSQE_ASYNC: a worker thread makes the call
)

type uringParams struct {
	SQEntries, CQEntries, Flags, ThreadCPU, ThreadIdle, Features, WorkQueueFD uint32
	_                                                                         [3]uint32
	SQ, CQ                                                                    uringOffsets
}

// uringOffsets is both struct io_sqring_offsets and struct io_cqring_offsets.
type uringOffsets struct {
	Head, Tail, Mask, Entries, FlagsOrOverflow, DroppedOrCQEs, Array, _ uint32
	_                                                                   uint64
}

type uringSQE struct {
	Opcode, Flags uint8
	Priority      uint16
	FD            int32
	Addr2, Addr   uint64
	Len, OpFlags  uint32
	UserData      uint64
	_             [3]uint64
}

// uring is the io_uring of this actor, which has one at most.
var uring struct {
	fd     uintptr
	params uringParams
	memory []byte // both rings: one mapping since Linux 5.4
	sqes   []byte
	name   [28]byte // the address for a connect, which the kernel may read later
}

// setUpRing makes the io_uring and returns its descriptor.
func setUpRing(flags uintptr) (uintptr, errno) {
	const entries = 8
	uring.params = uringParams{Flags: uint32(flags), ThreadIdle: 1}
	fd, _, e := syscall.RawSyscall(unix.SYS_IO_URING_SETUP, entries, uintptr(unsafe.Pointer(&uring.params)), 0)
	if e != 0 {
		return 0, uintptr(e)
	}
	uring.fd = fd
	p := &uring.params
	const cqeSize = 16
	size := max(int(p.SQ.Array+p.SQEntries*4), int(p.CQ.DroppedOrCQEs+p.CQEntries*cqeSize))
	var err error
	if uring.memory, err = mapRing(fd, uringOffSQ, size); err == nil {
		uring.sqes, err = mapRing(fd, uringOffSQEs, entries*int(unsafe.Sizeof(uringSQE{})))
	}
	if err != nil {
		return 0, uintptr(unix.ENOMEM)
	}
	return fd, 0
}

func mapRing(fd uintptr, offset int64, size int) ([]byte, error) {
	return syscall.Mmap(int(fd), offset, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
}

func ringWord(offset uint32) *uint32 { return (*uint32)(unsafe.Pointer(&uring.memory[offset])) }

// submit queues one request and makes the kernel process the queue.
func submit(sqe *uringSQE, name []byte) errno {
	p := &uring.params
	if sqe.Opcode == uringOpConnect {
		copy(uring.name[:], name)
		sqe.Addr = uint64(uintptr(unsafe.Pointer(&uring.name)))
	}
	tail := atomic.LoadUint32(ringWord(p.SQ.Tail))
	index := tail & *ringWord(p.SQ.Mask)
	copy(uring.sqes[index*64:], bytesOf(sqe))
	*ringWord(p.SQ.Array + 4*index) = index
	atomic.StoreUint32(ringWord(p.SQ.Tail), tail+1)
	flags, count := uintptr(0), uintptr(1)
	if p.Flags&UringSetupSQPoll != 0 {
		flags, count = uringEnterWakeup, 0
	}
	_, _, e := syscall.RawSyscall6(unix.SYS_IO_URING_ENTER, uring.fd, count, 0, flags, 0, 0)
	return uintptr(e)
}

// complete waits for the oldest result and returns it.
func complete() (uintptr, errno) {
	p := &uring.params
	head := atomic.LoadUint32(ringWord(p.CQ.Head))
	for atomic.LoadUint32(ringWord(p.CQ.Tail)) == head {
		_, _, e := syscall.RawSyscall6(unix.SYS_IO_URING_ENTER, uring.fd, 0, 1, uringEnterEvents, 0, 0)
		if e != 0 && e != unix.EINTR {
			return 0, uintptr(e)
		}
	}
	const cqeSize, resultAt = 16, 8
	at := p.CQ.DroppedOrCQEs + cqeSize*(head&*ringWord(p.CQ.Mask)) + resultAt
	result := int32(binary.NativeEndian.Uint32(uring.memory[at:]))
	atomic.StoreUint32(ringWord(p.CQ.Head), head+1)
	if result < 0 {
		return 0, uintptr(-result)
	}
	return uintptr(result), 0
}

// The rest of this file runs in the test, not in the actor.

// OpenUring makes an io_uring. It skips the test where the kernel does not allow that.
func (a *Actor) OpenUring(flags uintptr) {
	a.env.T.Helper()
	fd, err := a.Try(opRing, flags)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		SkipUnlessRequired(a.env.T, expect.IOUring, err)
	}
	a.env.must(a, opRing, err)
	a.ring = uintptr(fd)
	if flags&UringSetupSQPoll != 0 {
		a.env.await("submission thread", func() bool { return a.hasThread("iou-sqp") })
	}
}

func (a *Actor) hasThread(prefix string) bool {
	dir := fmt.Sprintf("/proc/%d/task", a.PID)
	tasks, _ := os.ReadDir(dir)
	for _, task := range tasks {
		comm, _ := os.ReadFile(dir + "/" + task.Name() + "/comm")
		if strings.HasPrefix(string(comm), prefix) {
			return true
		}
	}
	return false
}

// byRing makes one request and waits for its result.
func (th *thread) byRing(sqe *uringSQE, name []byte) (int, error) {
	th.actor.env.T.Helper()
	o := th.Order(opSubmit)
	_, err := o.do(o.Put(bytesOf(sqe))-th.base, o.Put(name)-th.base)
	th.actor.env.must(th.actor, opSubmit, err)
	return th.Try(opComplete)
}

// UringConnect connects the socket through the io_uring.
func (th *thread) UringConnect(s *Socket, to []byte, flags uint8) {
	env := th.actor.env
	env.T.Helper()
	from := Now()
	s.noteOperation(th.actor, from)
	s.Role, s.What = "client", "client "+s.Conn+" by io_uring"
	_, err := th.byRing(&uringSQE{Opcode: uringOpConnect, Flags: flags, FD: int32(th.actor.FD(s)), Addr2: uint64(len(to))}, to)
	env.must(th.actor, unix.SYS_CONNECT, err)
	th.learnAddrs(s)
	env.noteStep(th.actor, from, Now())
}

// UringAccept accepts a connection through the io_uring.
func (th *thread) UringAccept(listener *Socket, flags uint8) *Socket {
	env := th.actor.env
	env.T.Helper()
	from := Now()
	fd, err := th.byRing(&uringSQE{Opcode: uringOpAccept, Flags: flags, FD: int32(th.actor.FD(listener))}, nil)
	env.must(th.actor, unix.SYS_ACCEPT, err)
	return th.accepted(listener, fd, from)
}

// UringShutdown shuts down the sending side through the io_uring.
func (th *thread) UringShutdown(s *Socket, flags uint8) {
	env := th.actor.env
	env.T.Helper()
	from := Now()
	s.noteOperation(th.actor, from)
	_, err := th.byRing(&uringSQE{Opcode: uringOpShutdown, Flags: flags, FD: int32(th.actor.FD(s)), Len: unix.SHUT_WR}, nil)
	env.must(th.actor, unix.SYS_SHUTDOWN, err)
	env.noteStep(th.actor, from, Now())
}

// UringClose closes the socket's descriptor through the io_uring.
func (th *thread) UringClose(s *Socket, flags uint8) {
	env := th.actor.env
	env.T.Helper()
	from := Now()
	fd := th.actor.FD(s)
	delete(th.actor.Table.Slots, int(fd))
	env.noteRelease(th.actor, s, from)
	_, err := th.byRing(&uringSQE{Opcode: uringOpClose, Flags: flags, FD: int32(fd)}, nil)
	env.must(th.actor, unix.SYS_CLOSE, err)
	env.noteStep(th.actor, from, Now())
}

// inRing is the descriptor under which the harness records a registered socket; the
// process has no such descriptor.
const inRing = 1 << 20

// Register registers the socket with the io_uring and closes the descriptor: the
// process has the socket through its io_uring only.
func (th *thread) Register(s *Socket) {
	env := th.actor.env
	env.T.Helper()
	from := Now()
	fd := int32(th.actor.FD(s))
	o := th.Order(unix.SYS_IO_URING_REGISTER)
	_, err := o.do(th.actor.ring, uringRegisterFiles, o.Put(bytesOf(&fd)), 1)
	env.must(th.actor, unix.SYS_IO_URING_REGISTER, err)
	s.registered = true
	th.actor.adopt(inRing, s)
	env.noteStep(th.actor, from, Now())
	th.CloseFD(uintptr(fd))
}
