package harness

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/kernelmatrix/expect"
)

// A 32-bit actor is a program of some forty instructions, which the harness writes itself:
// guests have no compiler, and one test binary cannot be of two architectures. It reads
// and answers the same messages as an executor of 64 bits.

// abi is how a thread makes system calls, if not as this test binary does.
type abi struct {
	calls      map[uintptr]uintptr // by number in the native ABI
	bit        uintptr             // for the executor: how to make the call
	socketcall map[uintptr]uintptr // which calls are subcalls of socketcall()
}

// The bits of message.call that an executor understands, see rawCall.
const (
	int80Bit = 1 << 18 // int 0x80 instead of syscall
	x32Bit   = 1 << 17 // with the bit that marks a call of the x32 ABI
)

// translate replaces a native call by the call of the thread's ABI.
func (o *Order) translate() {
	abi, t := o.thread.abi, o.thread.actor.env.T
	t.Helper()
	if abi == nil {
		return
	}
	if sub, ok := abi.socketcall[o.msg.call]; ok {
		var words []byte
		for _, arg := range o.msg.args {
			words = binary.LittleEndian.AppendUint32(words, uint32(arg))
		}
		o.msg.args = [6]uintptr{sub, o.Put(words)}
		o.msg.call = socketcallNumber
		return
	}
	number, ok := abi.calls[o.msg.call]
	if !ok {
		t.Fatalf("system call %d has no number in the other ABI: add it", o.msg.call)
	}
	o.msg.call = number | abi.bit
}

// The program and its data, as the ELF header below places them.
const (
	compatImage  = 0x10000 // the file
	compatBuffer = 0x20000 // the message
	compatHeader = 52 + 32 // ELF header and one program header
)

// compatProgram returns an ELF file for 32 bits: the numbers of the two pipes, and code
// that finds them right behind the headers and the message at compatBuffer.
func compatProgram(pipes [2]int) []byte {
	le := binary.LittleEndian
	size := uint32(compatHeader + 8 + len(compatCode))
	file := []byte{0x7f, 'E', 'L', 'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	for _, half := range []uint16{2, compatMachine} { // ET_EXEC
		file = le.AppendUint16(file, half)
	}
	for _, word := range []uint32{1, compatImage + compatHeader + 8, 52, 0, compatFlags} { // entry, program headers
		file = le.AppendUint32(file, word)
	}
	for _, half := range []uint16{52, 32, 1, 0, 0, 0} {
		file = le.AppendUint16(file, half)
	}
	// PT_LOAD of the whole file, readable, writable and executable, and of the buffer.
	memory := uint32(compatBuffer - compatImage + messageSize)
	for _, word := range []uint32{1, 0, compatImage, compatImage, size, memory, 7, 0x1000} {
		file = le.AppendUint32(file, word)
	}
	for _, fd := range pipes {
		file = le.AppendUint32(file, uint32(fd))
	}
	return append(file, compatCode...)
}

// ExecCompat replaces the program of the process by one of 32 bits. It is an actor that
// makes system calls only. It skips the test if the kernel executes no such program.
func (a *Actor) ExecCompat(name string) {
	a.env.T.Helper()
	if err := a.tryExecCompat(name); err != nil {
		SkipUnlessRequired(a.env.T, expect.Compat, err)
	}
}

func (a *Actor) tryExecCompat(name string) error {
	env, th := a.env, a.thread
	env.T.Helper()
	path := filepath.Join(env.T.TempDir(), name)
	if err := os.WriteFile(path, compatProgram(th.Theirs), 0o700); err != nil {
		env.T.Fatal(err)
	}
	o := th.Order(unix.SYS_EXECVE)
	file := o.Put(append([]byte(path), 0))
	argv := [...]uintptr{file, 0}
	from := Now()
	o.Send(file, o.Put(bytesOf(&argv)), 0)
	var m message
	if err := th.receive(&m); err != nil {
		env.T.Fatalf("start of a 32-bit actor: %v", err)
	}
	if e := unix.Errno(m.errno); e != 0 {
		return fmt.Errorf("this machine executes no 32-bit programs: %w", e)
	}
	th.tid, th.base = int(m.args[helloTID]), m.args[helloBase]
	th.abi, a.forked = &abi{calls: compatCalls}, true
	for slot, at := range a.Table.Slots {
		if at.cloexec {
			delete(a.Table.Slots, slot)
			env.noteRelease(a, at.s, from)
		}
	}
	a.names.add(from, Now(), ReadComm(a.PID))
	env.noteStep(a, from, Now())
	a.Rename(name)
	return nil
}

// UseSocketcall makes a 32-bit actor call socketcall() for what has a subcall there.
func (a *Actor) UseSocketcall() {
	a.env.T.Helper()
	a.abi = &abi{calls: compatCalls, socketcall: socketSubcalls}
}

// UseInt80 makes a 64-bit actor make its system calls with int 0x80. Kernels that execute
// no 32-bit programs end a process for it.
func (a *Actor) UseInt80() {
	env := a.env
	env.T.Helper()
	if !int80Known {
		trial := env.StartActor("trial", 1)
		int80Known, int80Error = true, trial.tryExecCompat("trial")
		trial.Kill()
	}
	if int80Error != nil {
		SkipUnlessRequired(env.T, expect.Compat, int80Error)
	}
	a.abi = &abi{calls: compatCalls, bit: int80Bit}
}

var (
	int80Known bool
	int80Error error
)

// UseX32 makes a 64-bit actor make its system calls by the x32 ABI.
func (a *Actor) UseX32() {
	a.env.T.Helper()
	a.abi = &abi{calls: x32Calls(), bit: x32Bit}
	if _, err := a.Try(unix.SYS_FCNTL, 0, unix.F_GETFD); err != nil {
		a.abi = nil
		SkipUnlessRequired(a.env.T, expect.X32, err)
	}
}

// x32Calls are the native numbers, except for calls whose arguments contain pointers.
func x32Calls() map[uintptr]uintptr {
	calls := map[uintptr]uintptr{
		unix.SYS_RECVFROM: 517, unix.SYS_SETSOCKOPT: 541, unix.SYS_GETSOCKOPT: 542,
	}
	for native := range compatCalls {
		if _, other := calls[native]; !other {
			calls[native] = native
		}
	}
	return calls
}

// FillDescriptors opens files until the next descriptor that the process gets is above count.
func (a *Actor) FillDescriptors(count int) {
	a.env.T.Helper()
	a.SetFileLimit(4096)
	for a.NoSocketsTo < count {
		a.NoSocketsTo = a.Must(unix.SYS_DUP, 0)
	}
}
