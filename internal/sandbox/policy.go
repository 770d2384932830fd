package sandbox

import (
	"slices"

	"golang.org/x/sys/unix"

	seccomp "github.com/elastic/go-seccomp-bpf"
)

// always are the system calls that Go's runtime and a running trace make, and that reach nothing
// which is not open: memory, threads, signals of this process, clocks, and reading and writing.
var always = []string{
	"read", "write", "pread64", "sendmsg", "close", "fcntl", "lseek", "ftruncate", "fstat", "fstatfs",
	"getdents64", "readlinkat", "pipe2", "ppoll", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "eventfd2",
	"munmap", "madvise", "mincore", "futex", "membarrier", "sched_yield", "sched_getaffinity",
	"nanosleep", "clock_nanosleep", "clock_gettime", "restart_syscall", "setitimer", "timer_create", "timer_settime", "timer_delete",
	"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "exit", "exit_group",
	"getpid", "gettid", "geteuid", "getrlimit", "uname", "getrandom",
	"brk", "mremap", "rseq", "set_robust_list", // the C library's, in a build with cgo
}

// alwaysOn are those that differ by architecture (runtime.GOARCH), or whose names do in the library.
var alwaysOn = map[string][]string{
	"amd64": {"newfstatat", "poll"},
	"arm64": {"fstatat"},
}

// forNamespaces are those that reading the network namespaces of the host needs besides.
var forNamespaces = []string{"sendto", "recvfrom"}

// forCommand are those that the wait for a command needs besides. A descriptor of a process is needed
// to send it a signal, and none can be opened.
var forCommand = []string{"waitid", "wait4", "pidfd_send_signal"}

// forSockets are those that an output to a socket needs besides.
var forSockets = []string{"connect", "getsockopt", "setsockopt", "getsockname", "getpeername"}

// forListener are those that accepting connections needs besides.
var forListener = []string{"accept4", "shutdown", "getsockopt", "setsockopt", "getsockname", "getpeername"}

// bpfCommands are what a running trace does with its maps and programs (enum bpf_cmd in
// include/uapi/linux/bpf.h). It neither loads programs nor makes maps.
var bpfCommands = []uint64{
	unix.BPF_MAP_LOOKUP_ELEM,
	unix.BPF_PROG_TEST_RUN,      // finds the port of a listener
	unix.BPF_OBJ_GET_INFO_BY_FD, // recursion_misses
	unix.BPF_ITER_CREATE,        // reads bound ports
}

// ioctls are the requests to terminals and namespaces. TIOCSTI, which types into a terminal, is
// not among them.
var ioctls = []uint64{unix.TIOCGWINSZ, unix.TCGETS, unix.NS_GET_NSTYPE}

// writing are the flags of openat(2) that make a file or open it for writing. (O_TMPFILE needs
// one of them.)
const writing = unix.O_WRONLY | unix.O_RDWR | unix.O_CREAT | unix.O_TRUNC

// prSetVMA is PR_SET_VMA: Go's runtime gives its memory names.
const prSetVMA = 0x53564d41

// policy permits the system calls that a trace with these features makes, and refuses all others
// with EPERM. A refusal does not end the process: a later version of Go may try a system call
// that is not here.
func policy(f Features, pid int, architecture string) seccomp.Policy {
	names := slices.Concat(always, alwaysOn[architecture])
	conditional := []seccomp.NameWithConditions{
		when("mmap", noBits(2, unix.PROT_EXEC)),
		when("mprotect", noBits(2, unix.PROT_EXEC)),
		when("clone", bits(0, unix.CLONE_THREAD)), // threads, no processes
		when("prctl", equal(0, prSetVMA)),
		when("tgkill", equal(0, uint64(pid))),
		when("kill", equal(0, uint64(pid))),
		when("kill", equal(1, 0)),      // whether a process exists
		when("prlimit64", equal(2, 0)), // reads a limit
	}
	for _, command := range bpfCommands {
		conditional = append(conditional, when("bpf", equal(0, command)))
	}
	for _, request := range ioctls {
		conditional = append(conditional, when("ioctl", equal(1, request)))
	}
	if f.Namespaces {
		names = append(names, forNamespaces...)
		conditional = append(conditional,
			when("setns", equal(1, unix.CLONE_NEWNET)),
			when("socket", equal(0, unix.AF_NETLINK), equal(2, unix.NETLINK_SOCK_DIAG)))
	}
	if f.Command {
		names = append(names, forCommand...)
	}
	if len(f.Unix) > 0 || len(f.TCP) > 0 {
		names = append(names, forSockets...)
	}
	if f.Listen {
		names = append(names, forListener...)
		conditional = append(conditional, when("bpf", equal(0, unix.BPF_MAP_GET_NEXT_KEY)), when("bpf", equal(0, unix.BPF_MAP_DELETE_ELEM)))
	}
	if len(f.Unix) > 0 {
		names = append(names, "memfd_create") // for what is too large for a datagram
		conditional = append(conditional, when("socket", equal(0, unix.AF_UNIX)))
	}
	if len(f.TCP) > 0 { // UDP is for the lookup of names
		conditional = append(conditional, when("socket", equal(0, unix.AF_INET)), when("socket", equal(0, unix.AF_INET6)),
			when("ioctl", equal(1, unix.SIOCOUTQ)))
	}
	if len(f.Rotate) > 0 {
		names = append(names, "renameat", "unlinkat", "fsync")
	}
	if len(f.Spool) > 0 {
		names = append(names, "pwrite64", "unlinkat")
	}
	if len(f.Reopen) > 0 || len(f.Spool) > 0 {
		names = append(names, "openat")
	} else {
		conditional = append(conditional, when("openat", noBits(2, writing)))
	}
	slices.Sort(names) // features share some, and the library refuses duplicates
	names = slices.Compact(names)
	return seccomp.Policy{
		DefaultAction: seccomp.ActionErrno, // EPERM
		Syscalls: []seccomp.SyscallGroup{
			{Action: seccomp.ActionAllow, Names: names, NamesWithCondtions: conditional},
			// Their flags are in memory, where a filter cannot read them. The callers do without.
			{Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS), Names: []string{"openat2", "clone3"}},
		},
	}
}

func when(name string, conditions ...seccomp.Condition) seccomp.NameWithConditions {
	return seccomp.NameWithConditions{Name: name, Conditions: conditions}
}

func equal(argument uint32, value uint64) seccomp.Condition {
	return seccomp.Condition{Argument: argument, Operation: seccomp.Equal, Value: value}
}

func bits(argument uint32, mask uint64) seccomp.Condition {
	return seccomp.Condition{Argument: argument, Operation: seccomp.BitsSet, Value: mask}
}

func noBits(argument uint32, mask uint64) seccomp.Condition {
	return seccomp.Condition{Argument: argument, Operation: seccomp.BitsNotSet, Value: mask}
}
