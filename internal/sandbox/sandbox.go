// Package sandbox gives up the privileges of this process that it no longer needs, so that a
// fault that remote or local input finds in it harms the host less. The package must not decide
// which features are on.
package sandbox

import (
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"slices"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// Features are what is on after the start and needs privileges.
type Features struct {
	// Maps means that BPF maps are read, and that this kernel wants CAP_BPF for it:
	// [MapsNeedCapability].
	Maps bool
	// Programs means that BPF programs and maps are loaded again, when a reload changes the filters (CAP_BPF,
	// CAP_PERFMON). Restrict refuses it.
	Programs bool
	// Namespaces means that network namespaces are found and entered: the links in /proc/PID/ns
	// and /proc/PID/fd of other users (CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH), and setns(2)
	// (CAP_SYS_ADMIN).
	Namespaces bool
	// Command means that a command runs whose end is awaited, and which gets signals. It may become another
	// user, by a program with a set-user-ID bit for example (CAP_KILL).
	Command bool
	// Processes means that the executables of other users' processes are read: the links
	// /proc/PID/exe (CAP_SYS_PTRACE).
	Processes bool
	// Unix are the paths of the sockets that outputs connect to. Only Restrict uses it.
	Unix []string
	// TCP are the addresses, HOST:PORT, that outputs connect to. Only Restrict uses it.
	TCP []string
	// Listen means that connections to a listener that is open are accepted, and that sockets are counted in
	// a map, for metrics. Only Restrict uses it.
	Listen bool
	// Rotate are the directories in which output files are renamed, compressed and removed. Only
	// Restrict uses it.
	Rotate []string
	// Read are directories whose files are read again. Only Restrict uses it.
	Read []string
	// Spool are the directories in which outputs keep what their readers did not take. Only Restrict
	// uses it.
	Spool []string
	// Reopen are the directories of the output files that may be opened again. Only Restrict
	// uses it.
	Reopen []string
}

// MapsNeedCapability reports whether reading a map whose descriptor is open needs CAP_BPF. It does
// up to Linux 5.18 where the sysctl kernel.unprivileged_bpf_disabled is set. Since 5.19 (commit
// c8644cd0efe7) only making maps and loading programs needs it. An unknown version counts as old.
func MapsNeedCapability() bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return true
	}
	var major, minor int
	n, _ := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
	return n < 2 || major < 5 || major == 5 && minor < 19
}

// Capabilities are those that the features need, in the order of their numbers.
func (f Features) Capabilities() (list []cap.Value) {
	for _, each := range []struct {
		value  cap.Value
		needed bool
	}{
		{cap.DAC_READ_SEARCH, f.Namespaces},
		{cap.KILL, f.Command},
		{cap.SYS_PTRACE, f.Namespaces || f.Processes},
		{cap.SYS_ADMIN, f.Namespaces},
		{cap.PERFMON, f.Programs},
		{cap.BPF, f.Maps || f.Programs},
	} {
		if each.needed {
			list = append(list, each.value)
		}
	}
	return list
}

// DropPrivileges takes all capabilities except those of the features from every thread of this
// process: from the effective, permitted and bounding sets. The inheritable and ambient sets become
// empty. A capability of the features that is permitted becomes effective; no other is gained. It also
// sets no_new_privs: a program that this process executes gains none either. The bounding set stays if
// the process lacks CAP_SETPCAP.
//
// Each step needs a signal to each thread, so DropPrivileges raises RLIMIT_SIGPENDING. Where the kernel
// has no room for these signals, it stops, and what it has not dropped stays. The error joins those of
// all steps.
func DropPrivileges(f Features) error {
	raiseSignalLimit()
	var errs []error
	for _, s := range f.drop() {
		if err := roomForSignals(); err != nil {
			errs = append(errs, err)
			break
		}
		if err := s.do(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.what, err))
		}
	}
	return errors.Join(errs...)
}

// step is one system call in every thread.
type step struct {
	what string
	do   func() error
}

// drop returns the steps of DropPrivileges in their order.
func (f Features) drop() (steps []step) {
	own, keep, remaining := cap.GetProc(), f.Capabilities(), cap.NewSet()
	if canDrop, _ := own.GetFlag(cap.Effective, cap.SETPCAP); canDrop {
		for value := range cap.MaxBits() {
			if has, err := cap.GetBound(value); err == nil && has && !slices.Contains(keep, value) {
				steps = append(steps, step{"drop " + value.String() + " from the bounding set", func() error { return cap.DropBound(value) }})
			}
		}
	}
	var kept error
	for _, value := range keep {
		if has, err := own.GetFlag(cap.Permitted, value); err == nil && has {
			kept = errors.Join(kept, remaining.SetFlag(cap.Permitted, true, value), remaining.SetFlag(cap.Effective, true, value))
		}
	}
	return append(steps,
		step{"drop ambient capabilities", cap.ResetAmbient},
		step{"drop capabilities", func() error { return errors.Join(kept, remaining.SetProc()) }},
		step{"set no_new_privs", setNoNewPrivs})
}

func setNoNewPrivs() error {
	if _, _, errno := psx.Syscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// LimitMemory makes the garbage collector work harder before this process uses more than budget
// bytes, unless the variable GOMEMLIMIT sets another limit.
func LimitMemory(budget int64) {
	if debug.SetMemoryLimit(-1) == math.MaxInt64 {
		debug.SetMemoryLimit(budget)
	}
}
