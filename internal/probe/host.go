package probe

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/privilege"
)

// HostError is the error of a host that cannot trace, with what its operator can do.
type HostError struct {
	Problem string // a clause without a full stop
	Remedy  string // an imperative without a full stop
}

// Error is the problem and the remedy, separated by a colon.
func (e *HostError) Error() string {
	return e.Problem + ": " + e.Remedy
}

// Tracepoint is the tracepoint of the group sock that reports transitions.
const Tracepoint = "inet_sock_set_state"

// What the kernel permits only to a process with privileges.
var (
	useBPF = privilege.Operation{
		Name: "BPF", Command: "tcpshift", SystemCall: "bpf",
		CommandCapabilities: []privilege.Capability{unix.CAP_BPF, unix.CAP_PERFMON},
	}
	enterNetns = privilege.Operation{
		Name: "entering network namespaces", Command: "tcpshift snapshot", SystemCall: "setns",
		CommandCapabilities: []privilege.Capability{unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_SYS_ADMIN},
	}
	searchNetns = privilege.Operation{
		Name: "finding and entering the network namespaces of others", Command: "tcpshift", SystemCall: "setns",
		CommandCapabilities: []privilege.Capability{unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_SYS_ADMIN, unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH},
	}
)

// refused returns the error of an operation that the kernel has refused to this process.
func refused(o *privilege.Operation) *HostError {
	problem, remedy := o.ExplainRefusal()
	return &HostError{problem, remedy}
}

// isRefusal reports whether an error of bpf(2) is about the process, not about its request:
// EPERM; EACCES, by which a security module refuses; or ENOSYS, the answer of some seccomp
// filters.
func isRefusal(err error) bool {
	var verifier *ebpf.VerifierError
	if errors.As(err, &verifier) && len(verifier.Log) > 0 {
		return false // the verifier refuses an access with EACCES
	}
	return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOSYS) && privilege.HasSeccomp()
}

// Requirement is something that tracing cannot do without.
type Requirement struct {
	Name  string
	Check func() error // a [*HostError] if it is missing
}

// Requirements returns all requirements, ordered such that the first one that fails
// explains the failures after it.
func Requirements() []Requirement {
	return requirements(btf.NewCache())
}

func requirements(types *btf.Cache) []Requirement {
	return []Requirement{
		{"/proc is mounted", checkProc},
		{"kernel 5.8 or later, with ring buffers", checkRingBuffer},
		{"kernel type information (BTF)", func() error { return checkBTF(types) }},
		{"tracepoint sock:" + Tracepoint, func() error { return checkTracepoint(types) }},
	}
}

// checkHost lifts the memory limit and returns the error of the first requirement that fails.
func checkHost(types *btf.Cache) error {
	limited := allowMemory()
	for _, r := range requirements(types) {
		if err := r.Check(); err != nil {
			return err
		}
	}
	return limited // last, because a user without the privilege for BPF fails here too
}

// allowMemory lifts RLIMIT_MEMLOCK, which limits BPF memory before Linux 5.11.
func allowMemory() error {
	err := rlimit.RemoveMemlock()
	if errors.Is(err, unix.EPERM) {
		return &HostError{"this kernel limits BPF memory by RLIMIT_MEMLOCK, which this user may not raise",
			"run as root, or with 'ulimit -l unlimited'"}
	}
	return err
}

// checkProc also fails if something else is mounted at /proc: then no error that follows is of any
// use.
func checkProc() error {
	if _, err := os.Stat("/proc/self/stat"); errors.Is(err, fs.ErrNotExist) {
		return &HostError{"there is no /proc", "mount it (mount -t proc proc /proc)"}
	}
	return nil
}

// limitError is the error of a process that can open no further file, else nil. The ebpf library
// does not wrap every EMFILE.
func limitError(err error) error {
	var limit unix.Rlimit
	if !errors.Is(err, unix.EMFILE) && !strings.Contains(err.Error(), unix.EMFILE.Error()) || unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return nil
	}
	return &HostError{fmt.Sprintf("this process may have only %d files open, too few for the programs and their maps", limit.Cur),
		"raise the limit (ulimit -n, or LimitNOFILE= of the unit)"}
}

// checkRingBuffer creates a ring buffer, which needs both the kernel and the privilege.
func checkRingBuffer() error {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "tcpshift_check", Type: ebpf.RingBuf, MaxEntries: uint32(os.Getpagesize())})
	switch {
	case err == nil:
		return m.Close()
	case isRefusal(err):
		return refused(&useBPF)
	case errors.Is(err, unix.EMFILE):
		return limitError(err)
	case errors.Is(err, unix.ENOSYS):
		return &HostError{"this kernel has no bpf() system call", "use one built with CONFIG_BPF_SYSCALL"}
	case errors.Is(err, unix.EINVAL), errors.Is(err, ebpf.ErrNotSupported):
		return &HostError{"this kernel has no BPF ring buffer", "use Linux 5.8 or later"}
	}
	return fmt.Errorf("create a BPF ring buffer: %w", err)
}

func checkBTF(types *btf.Cache) error {
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); errors.Is(err, fs.ErrNotExist) {
		return &HostError{
			"this kernel shows no type information at /sys/kernel/btf/vmlinux",
			"mount sysfs, or use a kernel built with CONFIG_DEBUG_INFO_BTF=y",
		}
	}
	if _, err := types.Kernel(); err != nil {
		return &HostError{"the kernel's type information cannot be read (" + err.Error() + ")",
			"use a kernel built with CONFIG_DEBUG_INFO_BTF=y"}
	}
	return nil
}

func checkTracepoint(types *btf.Cache) error {
	spec, err := types.Kernel()
	if err != nil {
		return fmt.Errorf("read the kernel's type information: %w", err)
	}
	var hook *btf.Typedef
	if err := spec.TypeByName("btf_trace_"+Tracepoint, &hook); err != nil {
		return &HostError{"this kernel has no tracepoint sock:" + Tracepoint,
			"use a kernel built with CONFIG_INET=y and CONFIG_TRACEPOINTS=y"}
	}
	return nil
}

// loadError distinguishes a missing privilege from a program that the verifier refuses.
func loadError(err error) error {
	if isRefusal(err) {
		return refused(&useBPF)
	}
	if limited := limitError(err); limited != nil {
		return limited
	}
	var verifier *ebpf.VerifierError
	if errors.As(err, &verifier) {
		// The verifier does not know bpf_probe_read_kernel() then (bpf_tracing_func_proto in kernel/trace/bpf_trace.c).
		if problem, remedy, ok := privilege.ExplainLockdown(); ok {
			return &HostError{problem, remedy}
		}
		return fmt.Errorf("this kernel's verifier refuses the programs, please report it with 'uname -a': %w", err)
	}
	if errors.Is(err, ebpf.ErrNotSupported) && hasFewDescriptors() {
		return limitError(unix.EMFILE)
	}
	return fmt.Errorf("load programs: %w", err)
}

// hasFewDescriptors reports whether the limit on open files may be what a load failed on. The
// library takes a map flag for unsupported if its test of it finds no free descriptor.
func hasFewDescriptors() bool {
	const enough = 100 // all maps, programs and links at once are fewer
	var limit unix.Rlimit
	return unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil && limit.Cur < enough
}
