// Package privilege explains why the kernel refuses an operation to this process, and what
// its operator can do. It reads /proc/self and the kernel's lockdown level, and must not change
// privileges.
package privilege

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/safeopen"
)

// Capability is the number of a capability, as in capabilities(7), such as unix.CAP_BPF.
type Capability int

var names = map[Capability]string{
	unix.CAP_BPF:             "CAP_BPF",
	unix.CAP_DAC_READ_SEARCH: "CAP_DAC_READ_SEARCH",
	unix.CAP_PERFMON:         "CAP_PERFMON",
	unix.CAP_SYS_ADMIN:       "CAP_SYS_ADMIN",
	unix.CAP_SYS_PTRACE:      "CAP_SYS_PTRACE",
}

// String gives the name of a capability that tcpshift asks for, else an empty string.
func (c Capability) String() string { return names[c] }

// Operation is something that the kernel permits only to a process with privileges.
type Operation struct {
	Name                string       // a noun phrase, such as "BPF" or "entering network namespaces"
	Command             string       // what the operator runs, such as "tcpshift snapshot"
	CommandCapabilities []Capability // all that Command needs, not only those for this operation
	SystemCall          string       // what a seccomp filter may refuse
}

// ExplainRefusal explains why the kernel has refused the operation to this process: the problem,
// a clause that names what is missing, and the remedy, an imperative.
func (o *Operation) ExplainRefusal() (problem, remedy string) {
	p := current()
	return o.problemOf(&p), o.remedyOf(&p)
}

// IsPermitted reports whether this process has all capabilities of the operation's command, or
// /proc does not show which it has.
func (o *Operation) IsPermitted() bool {
	p := current()
	return !p.known || len(o.missing(p.effective)) == 0
}

// HasSeccomp reports whether a seccomp filter is active for this process.
func HasSeccomp() bool {
	p := current()
	return p.hasSeccomp
}

// process is the state that decides what the kernel permits to this process.
type process struct {
	known              bool // whether /proc shows them
	uid                int
	effective, bounded uint64 // sets of capabilities, with a bit for each
	noNewPrivs         bool   // exec gives no privileges: neither sudo nor setcap helps
	inUserNamespace    bool   // in another user namespace than the initial one; the kernel permits BPF in the initial one only
	hasSeccomp         bool
	lockdown           string // see Lockdown
}

func current() process {
	p := process{uid: os.Geteuid(), lockdown: Lockdown()}
	status, err := safeopen.ReadFile("/proc/self/status")
	if err != nil {
		return p
	}
	p.parse(string(status))
	const initialUserNamespace = 0xEFFFFFFD // PROC_USER_INIT_INO, include/linux/proc_ns.h
	info, err := os.Stat("/proc/self/ns/user")
	p.inUserNamespace = err == nil && info.Sys().(*syscall.Stat_t).Ino != initialUserNamespace
	return p
}

// parse reads the content of /proc/self/status, see proc_pid_status(5).
func (p *process) parse(status string) {
	p.known = true
	for line := range strings.Lines(status) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
		switch key {
		case "CapEff":
			p.effective, _ = strconv.ParseUint(value, 16, 64)
		case "CapBnd":
			p.bounded, _ = strconv.ParseUint(value, 16, 64)
		case "NoNewPrivs":
			p.noNewPrivs = value != "0"
		case "Seccomp":
			p.hasSeccomp = value != "0"
		}
	}
}

// missing returns those of the capabilities that the set does not have. CAP_SYS_ADMIN
// includes CAP_BPF and CAP_PERFMON (include/linux/capability.h).
func (o *Operation) missing(set uint64) (list []Capability) {
	for _, c := range o.CommandCapabilities {
		includes := uint64(1) << c
		if c == unix.CAP_BPF || c == unix.CAP_PERFMON {
			includes |= 1 << unix.CAP_SYS_ADMIN
		}
		if set&includes == 0 {
			list = append(list, c)
		}
	}
	return list
}

func (o *Operation) problemOf(p *process) string {
	if !p.known {
		return fmt.Sprintf("this kernel does not permit %s to this process (uid %d)", o.Name, p.uid)
	}
	capabilities, namespace, seccomp := "with "+join(o.CommandCapabilities), "in the initial user namespace", "without a seccomp filter"
	if missing := o.missing(p.effective); len(missing) > 0 {
		capabilities = "without " + join(missing)
	}
	if p.inUserNamespace {
		namespace = "in a user namespace, where capabilities do not count for it"
	}
	if p.hasSeccomp {
		seccomp = "under a seccomp filter"
	}
	return fmt.Sprintf("this kernel does not permit %s to this process (uid %d, %s, %s, %s)", o.Name, p.uid, capabilities, namespace, seccomp)
}

func (o *Operation) remedyOf(p *process) string {
	missing := len(o.missing(p.effective)) > 0
	gainable := len(o.missing(p.bounded)) == 0 && !p.noNewPrivs
	switch {
	case p.known && p.inUserNamespace:
		return "run it in the initial user namespace: as root on the host, or in a container that is not rootless (docker run --userns=host " +
			o.containerOptions() + ")"
	case p.known && !missing && p.hasSeccomp:
		return "let the seccomp profile permit the system call " + o.SystemCall +
			" (docker run --security-opt seccomp=PROFILE, systemd SystemCallFilter=" + o.SystemCall + ")"
	case p.known && !missing:
		if p.lockdown == confidentiality {
			return confidentialityRemedy
		}
		return "find the security module that refuses it (SELinux, AppArmor, BPF) in the kernel's log or the audit log"
	case p.uid == 0 || p.known && !gainable:
		return "give " + join(o.CommandCapabilities) + " to its container (docker run " + o.containerOptions() +
			"), pod (securityContext.capabilities.add) or service (systemd CapabilityBoundingSet)"
	}
	file := o.withEffective(p.effective)
	// In this order: a change of the group removes the capabilities of a file.
	return fmt.Sprintf("run as root (sudo %s), or let only a group that you trust execute the binary (chgrp GROUP, chmod 0750), and then give it %s (setcap %s+ep)",
		o.Command, join(file), strings.ToLower(strings.Join(words(file), ",")))
}

// withEffective returns the capabilities of the operation, and those in the set that another
// operation of tcpshift needs: setcap replaces all that the binary has.
func (o *Operation) withEffective(set uint64) []Capability {
	list := slices.Clone(o.CommandCapabilities)
	for _, c := range slices.Sorted(maps.Keys(names)) {
		if set&(1<<c) != 0 && !slices.Contains(list, c) {
			list = append(list, c)
		}
	}
	return list
}

// containerOptions are the options of docker and podman that give the capabilities.
func (o *Operation) containerOptions() string {
	options := make([]string, len(o.CommandCapabilities))
	for i, c := range o.CommandCapabilities {
		options[i] = "--cap-add=" + strings.TrimPrefix(c.String(), "CAP_")
	}
	return strings.Join(options, " ")
}

func words(list []Capability) []string {
	all := make([]string, len(list))
	for i, c := range list {
		all[i] = c.String()
	}
	return all
}

// join makes a list such as "CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN".
func join(list []Capability) string {
	all := words(list)
	last := len(all) - 1
	if last == 0 {
		return all[0]
	}
	return strings.Join(all[:last], ", ") + " and " + all[last]
}

// ExplainLimit adds to EMFILE what the operator can do. It returns other errors, such as ENFILE,
// as they are.
func ExplainLimit(err error) error {
	var limit unix.Rlimit
	if errors.Is(err, unix.EMFILE) && unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		return fmt.Errorf("%w: this process may have %d files open: raise the limit (ulimit -n, or LimitNOFILE= of the unit)", err, limit.Cur)
	}
	return err
}

// confidentiality is the level of the kernel's lockdown at which no program may read kernel memory.
const (
	confidentiality       = "confidentiality"
	confidentialityRemedy = "boot without lockdown=confidentiality; lockdown=integrity permits tracing"
)

// Lockdown returns the level of the kernel's lockdown: none, integrity or confidentiality; empty if
// the kernel has no lockdown or securityfs is not mounted.
func Lockdown() string {
	text, err := safeopen.ReadFile("/sys/kernel/security/lockdown")
	if err != nil {
		return ""
	}
	return parseLockdown(string(text))
}

// parseLockdown parses a text such as "none [integrity] confidentiality" (lockdown_read in
// security/lockdown/lockdown.c).
func parseLockdown(text string) string {
	_, rest, _ := strings.Cut(text, "[")
	level, _, _ := strings.Cut(rest, "]")
	return level
}

// ExplainLockdown explains why the kernel lets no BPF program read its memory, not even
// one that root loads. ok is false if lockdown is not the reason.
func ExplainLockdown() (problem, remedy string, ok bool) {
	if Lockdown() != confidentiality {
		return "", "", false
	}
	return "this kernel is in lockdown=confidentiality, in which BPF programs may not read kernel memory", confidentialityRemedy, true
}

// CheckHostPIDs returns nil if the pids that this process sees are those of the host, which the
// kernel programs emit: if it is in the initial pid namespace. Else the error is the reason why not.
func CheckHostPIDs() error {
	const initialPidns = 0xEFFFFFFC // PROC_PID_INIT_INO, include/linux/proc_ns.h
	info, err := os.Stat("/proc/self/ns/pid")
	switch {
	case err != nil:
		return fmt.Errorf("the pid namespace is not known: %w", err)
	case info.Sys().(*syscall.Stat_t).Ino != initialPidns:
		return errors.New("this process is in a pid namespace of its own")
	}
	return nil
}
