package probe

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// The names of the optional kernel features, as in the key features of a start record.
const (
	SocketStorage = "socket_storage" // socket storage in tracing programs
	SocketCookie  = "socket_cookie"  // socket cookies in tracing programs
	SocketScan    = "socket_scan"    // finds the owners of sockets older than the tracer
	AcceptHook    = "accept_hook"    // finds the process that accepts a connection
	ReadHook      = "read_hook"      // finds it at its first read, where there is no accept hook
	TimeWaitEnds  = "time_wait_ends" // finds when and how a TIME_WAIT ends
	ResetReceived = "reset_received" // finds that a reset has arrived
	ResetSent     = "reset_sent"     // finds that this side has sent a reset, and why
	LiveUpdates   = "live_updates"   // reports connections while they live
)

// Feature is an optional kernel feature. Tracing works without it, but records less.
type Feature struct {
	Name   string
	Err    error  // why the kernel does not have it; nil: it has it
	Cost   string // what records lack without it
	Remedy string // what the operator can do to have it
}

// Features are all optional features, in a fixed order.
type Features []Feature

func (f Features) has(name string) bool {
	for _, feature := range f {
		if feature.Name == name {
			return feature.Err == nil
		}
	}
	return false
}

// without returns a copy of the features, as if the kernel did not have those with these
// names.
func (f Features) without(names []string) Features {
	f = slices.Clone(f)
	for i := range f {
		if slices.Contains(names, f[i].Name) {
			f[i].Err = errors.New("switched off")
		}
	}
	return f
}

// lose marks a feature as failed. One that was off before keeps its reason.
func (f Features) lose(name string, err error) {
	for i := range f {
		if f[i].Name == name && f[i].Err == nil {
			f[i].Err = err
		}
	}
}

// rcvSpaceAdjust is the tracepoint of on_read() in bpf/reader.h.
const rcvSpaceAdjust = "tcp_rcv_space_adjust"

// DetectFeatures tries each feature with a program of a few instructions. The features that need socket
// storage (SocketScan, AcceptHook, ReadHook, LiveUpdates) are not tried without it; they have its error.
// LiveUpdates needs SocketCookie, too.
func DetectFeatures() Features {
	return detectFeatures(btf.NewCache())
}

func detectFeatures(types *btf.Cache) Features {
	_ = allowMemory() // before 5.11 each trial needs it; Open reports its error
	storage := trySocketStorage(types)
	scan := storage
	if scan == nil {
		scan = tryScan(types)
	}
	accept := storage
	if accept == nil {
		accept = tryAcceptHook(types)
	}
	read := storage
	if read == nil {
		read = tryTracepoint(types, rcvSpaceAdjust)
	}
	cookie := trySocketCookie(types)
	updates := cmp.Or(storage, cookie)
	if updates == nil {
		updates = tryUpdates(types)
	}
	return Features{
		{SocketStorage, storage,
			"owners, roles and durations are known only where a single transition shows them", "use Linux 5.15 or later"},
		{SocketCookie, cookie, "records have no conn", "use Linux 5.15 or later"},
		{SocketScan, scan, "owners of sockets older than the tracer are known only once they operate on them",
			"use Linux 5.15 or later"},
		{AcceptHook, accept,
			"an accepted socket is its listener's (pid_source listener) until its own process reads from it, closes it or shuts it down",
			"use a kernel that allows fexit programs (CONFIG_FUNCTION_TRACER, no lockdown; arm64: Linux 6.4)"},
		{ReadHook, read,
			"without accept_hook, a process that accepts is not known before it closes or shuts down the connection",
			"use Linux 5.15 or later, and do not pass --owner-at-read=false"},
		{TimeWaitEnds, tryTimeWaitEnds(types), "--time-wait-end emits nothing", "use a kernel with the kmem and timer tracepoints"},
		{ResetReceived, tryTracepoint(types, receiveReset), "closed_by reset_received goes by the socket's error",
			"use a kernel with the tracepoint tcp_receive_reset"},
		{ResetSent, tryTracepoint(types, sendReset),
			"records have no reset_reason, and closed_by reset_sent goes by the socket's state and error",
			"use a kernel with the tracepoint tcp_send_reset"},
		{LiveUpdates, updates, "--updates ends with status 3", "use Linux 5.15 or later"},
	}
}

// trySocketCookie tries bpf_get_socket_cookie() on a struct sock.
func trySocketCookie(types *btf.Cache) error {
	return tryProgram(types, atTracepoint, asm.Instructions{
		asm.LoadMem(asm.R1, asm.R1, 0, asm.DWord), // the tracepoint's sk
		asm.FnGetSocketCookie.Call(),
		asm.Mov.Imm(asm.R0, 0),
		asm.Return(),
	})
}

// trySocketStorage tries to create socket storage with bpf_sk_storage_get().
func trySocketStorage(types *btf.Cache) error {
	m, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "tcpshift_check", Type: ebpf.SkStorage, Flags: unix.BPF_F_NO_PREALLOC,
		KeySize: 4, ValueSize: 4,
		Key:   &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed},
		Value: &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed},
	})
	if err != nil {
		return fmt.Errorf("this kernel cannot create it: %w", err)
	}
	defer m.Close()
	const createIfMissing = 1 // BPF_SK_STORAGE_GET_F_CREATE
	return tryProgram(types, atTracepoint, asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, 0, asm.DWord),
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.Mov.Imm(asm.R3, 0),
		asm.Mov.Imm(asm.R4, createIfMissing),
		asm.FnSkStorageGet.Call(),
		asm.Mov.Imm(asm.R0, 0),
		asm.Return(),
	})
}

// tryScan tries bpf_sock_from_file() in an iterator over all open files.
func tryScan(types *btf.Cache) error {
	const offsetOfFile = 24 // struct bpf_iter__task_file, kernel/bpf/task_iter.c
	return tryProgram(types, atTaskFiles, asm.Instructions{
		asm.LoadMem(asm.R1, asm.R1, offsetOfFile, asm.DWord),
		asm.JEq.Imm(asm.R1, 0, "out"),
		asm.FnSockFromFile.Call(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
		asm.Return(),
	})
}

// tryAcceptHook also attaches the program: some kernels load it and cannot attach it.
func tryAcceptHook(types *btf.Cache) error {
	return tryProgram(types, atAccept, asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()})
}

func tryTimeWaitEnds(types *btf.Cache) error {
	if err := tryTracepoint(types, "kmem_cache_free"); err != nil {
		return err
	}
	return tryTracepoint(types, "timer_expire_entry")
}

func tryTracepoint(types *btf.Cache, name string) error {
	return tryProgram(types, hook{ebpf.AttachTraceRawTp, name, false},
		asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()})
}

// hook is a place to try a program at.
type hook struct {
	attachType ebpf.AttachType
	attachTo   string
	attach     bool // whether to attach the program as well
}

var (
	atTracepoint = hook{ebpf.AttachTraceRawTp, Tracepoint, false}
	atTaskFiles  = hook{ebpf.AttachTraceIter, "task_file", false}
	atAccept     = hook{ebpf.AttachTraceFExit, acceptFunction, true}
)

func tryProgram(types *btf.Cache, at hook, instructions asm.Instructions) error {
	const name = "tcpshift_check"
	spec := ebpf.CollectionSpec{Programs: map[string]*ebpf.ProgramSpec{name: {
		Name: name, Type: ebpf.Tracing, AttachType: at.attachType, AttachTo: at.attachTo,
		License: "GPL", Instructions: instructions,
	}}}
	loaded, err := ebpf.NewCollectionWithOptions(&spec, ebpf.CollectionOptions{Cache: types})
	if err != nil {
		return reasonFor(err)
	}
	defer loaded.Close()
	if !at.attach {
		return nil
	}
	l, err := attachTracing(loaded.Programs[name])
	if err != nil {
		return fmt.Errorf("this kernel loads such a program but does not attach it: %w", err)
	}
	return l.Close()
}

// reasonFor turns the error of a trial into a reason for the operator. It omits what the
// ebpf library guesses: with EPERM it blames a memory limit.
func reasonFor(err error) error {
	var refused *ebpf.VerifierError
	switch {
	case errors.Is(err, unix.EPERM):
		return errors.New("this kernel does not permit it (lockdown, or built without)")
	case errors.As(err, &refused):
		return errors.New("this kernel does not allow it in tracing programs")
	case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, btf.ErrNotFound):
		return errors.New("this kernel does not have it")
	}
	return fmt.Errorf("it could not be tried: %w", err)
}
