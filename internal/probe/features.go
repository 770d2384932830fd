package probe

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// The things that tracing is better with, by their names in start.features.
const (
	SocketStorage = "socket_storage" // memory kept on a socket, in tracing programs
	SocketCookie  = "socket_cookie"  // the socket's identity, in tracing programs
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

// DetectFeatures tries each with a program of a few instructions.
func DetectFeatures() Features {
	return Features{
		{SocketStorage, trySocketStorage(), "roles are known only where a transition shows them", "use Linux 5.12 or later"},
		{SocketCookie, trySocketCookie(), "records have no conn", "use Linux 5.12 or later"},
	}
}

// trySocketCookie: bpf_get_socket_cookie() on a struct sock, in tracing since 5.12.
func trySocketCookie() error {
	return tryTracing(asm.Instructions{
		asm.LoadMem(asm.R1, asm.R1, 0, asm.DWord), // the tracepoint's sk
		asm.FnGetSocketCookie.Call(),
		asm.Mov.Imm(asm.R0, 0),
		asm.Return(),
	})
}

// trySocketStorage: bpf_sk_storage_get() in tracing since 5.12.
func trySocketStorage() error {
	m, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "tcpshift_check", Type: ebpf.SkStorage, Flags: 1, /* BPF_F_NO_PREALLOC */
		KeySize: 4, ValueSize: 4,
		Key:   &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed},
		Value: &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed},
	})
	if err != nil {
		return fmt.Errorf("this kernel cannot create it: %w", err)
	}
	defer m.Close()
	return tryTracing(asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, 0, asm.DWord),
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.Mov.Imm(asm.R3, 0),
		asm.Mov.Imm(asm.R4, 1), // BPF_SK_STORAGE_GET_F_CREATE
		asm.FnSkStorageGet.Call(),
		asm.Mov.Imm(asm.R0, 0),
		asm.Return(),
	})
}

func tryTracing(instructions asm.Instructions) error {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "tcpshift_check", Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: Tracepoint,
		License: "GPL", Instructions: instructions,
	})
	if err == nil {
		return program.Close()
	}
	var refused *ebpf.VerifierError
	if errors.As(err, &refused) {
		return errors.New("this kernel does not allow it in tracing programs")
	}
	return fmt.Errorf("try it: %w", err)
}
