package kubernetes_test

import (
	seccomp "github.com/elastic/go-seccomp-bpf"
)

// refusedByRuntime are system calls that RuntimeDefault refuses a container with the capabilities of the manifest,
// if it is as strict as it has been: the default profile of containerd in 2020 (contrib/seccomp/seccomp_default.go).
// Later ones, and that of Docker (profiles/seccomp/default.json in moby), permit the first ones. bpf,
// perf_event_open, setns and unshare are permitted with CAP_SYS_ADMIN by all of them.
var refusedByRuntime = []string{
	"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "pidfd_open", "pidfd_send_signal",
	"pidfd_getfd", "close_range", "epoll_pwait2", "membarrier", "rseq", "clone3", "preadv2", "pwritev2",
	"io_uring_setup", "io_uring_enter", "io_uring_register", "add_key", "keyctl", "request_key", "userfaultfd",
	"move_pages", "mbind", "set_mempolicy", "get_mempolicy", "pivot_root", "chroot", "open_tree", "move_mount", "fsopen",
	"fsmount", "fsconfig", "init_module", "finit_module", "delete_module", "kexec_load", "reboot", "swapon", "swapoff",
	"settimeofday", "clock_settime", "quotactl", "acct", "iopl", "ioperm", "vhangup",
}

// refuseAsRuntime refuses these system calls to this process, with EPERM as the profiles do.
func refuseAsRuntime() error {
	return seccomp.LoadFilter(seccomp.Filter{Flag: seccomp.FilterFlagTSync, Policy: seccomp.Policy{
		DefaultAction: seccomp.ActionAllow,
		Syscalls:      []seccomp.SyscallGroup{{Action: seccomp.ActionErrno, Names: refusedByRuntime}},
	}})
}
