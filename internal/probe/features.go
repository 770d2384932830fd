package probe

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// The things that tracing is better with, by their names in start.features.
const (
	SocketStorage = "socket_storage" // memory kept on a socket, in tracing programs
	SocketCookie  = "socket_cookie"  // the socket's identity, in tracing programs
	SocketScan    = "socket_scan"    // the owners of sockets older than the tracer
	AcceptHook    = "accept_hook"    // the accepting process, at once
	TimeWaitEnds  = "time_wait_ends" // when and how a TIME_WAIT ends
)

// Feature is one of them: Err is nil where the kernel gives it.
type Feature struct {
	Name   string
	Err    error
	Cost   string // what is lost without it
	Remedy string
}

// Features are in a fixed order.
type Features []Feature

func (f Features) has(name string) bool {
	for _, feature := range f {
		if feature.Name == name {
			return feature.Err == nil
		}
	}
	return false
}

// without takes features away as if the kernel did not have them.
func (f Features) without(names []string) Features {
	for i := range f {
		if slices.Contains(names, f[i].Name) {
			f[i].Err = errors.New("switched off")
		}
	}
	return f
}

// DetectFeatures tries each with a program of a few instructions.
func DetectFeatures() Features {
	return detectFeatures(btf.NewCache())
}

func detectFeatures(types *btf.Cache) Features {
	_ = allowMemory() // or each trial fails for the limit before 5.11; Open says that there is one
	storage := trySocketStorage(types)
	scan := storage
	if scan == nil {
		scan = tryScan(types)
	}
	accept := storage
	if accept == nil {
		accept = tryAcceptHook(types)
	}
	return Features{
		{SocketStorage, storage,
			"owners, roles and durations are known only where a single transition shows them", "use Linux 5.15 or later"},
		{SocketCookie, trySocketCookie(types), "records have no conn", "use Linux 5.15 or later"},
		{SocketScan, scan, "owners of sockets older than the tracer are known only once they operate on them",
			"use Linux 5.15 or later"},
		{AcceptHook, accept,
			"an accepted socket is its listener's (pid_source listener) until its own process closes or shuts it down",
			"use a kernel that allows fexit programs (CONFIG_FUNCTION_TRACER, no lockdown; arm64: Linux 6.4)"},
		{TimeWaitEnds, tryTimeWaitEnds(types), "--time-wait-end tells nothing", "use a kernel with the kmem and timer tracepoints"},
	}
}

// trySocketCookie: bpf_get_socket_cookie() on a struct sock.
func trySocketCookie(types *btf.Cache) error {
	return tryProgram(types, atTracepoint, asm.Instructions{
		asm.LoadMem(asm.R1, asm.R1, 0, asm.DWord), // the tracepoint's sk
		asm.FnGetSocketCookie.Call(),
		asm.Mov.Imm(asm.R0, 0),
		asm.Return(),
	})
}

// trySocketStorage: bpf_sk_storage_get() that creates.
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

// tryScan: bpf_sock_from_file() in a walk over all files.
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

// tryAcceptHook also attaches: some kernels load such a program and cannot attach it.
func tryAcceptHook(types *btf.Cache) error {
	return tryProgram(types, atAccept, asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()})
}

func tryTimeWaitEnds(types *btf.Cache) error {
	nothing := asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}
	if err := tryProgram(types, hook{ebpf.AttachTraceRawTp, "kmem_cache_free", false}, nothing); err != nil {
		return err
	}
	return tryProgram(types, hook{ebpf.AttachTraceRawTp, "timer_expire_entry", false}, nothing)
}

// hook is where a program of a few instructions is tried.
type hook struct {
	attachType ebpf.AttachType
	attachTo   string
	attach     bool
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

// reasonFor leaves out what the library guesses: next to EPERM it blames a memory
// limit, where the kernel has just said no.
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
