package privilege

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const all = 1<<41 - 1

func bits(list ...int) (set uint64) {
	for _, c := range list {
		set |= 1 << c
	}
	return set
}

// The explanation names the capability that is missing, the user namespace and the seccomp
// filter, and the remedy fits the first of them that is the cause.
func TestOperation_Refused(t *testing.T) {
	bpf := Operation{Name: "BPF", Command: "tcpshift", SystemCall: "bpf", CommandCapabilities: []Capability{unix.CAP_BPF, unix.CAP_PERFMON}}
	const (
		root      = "run as root (sudo tcpshift), or let only a group that you trust execute the binary (chgrp GROUP, chmod 0750), and then give it CAP_BPF and CAP_PERFMON (setcap cap_bpf,cap_perfmon+ep)"
		container = "give CAP_BPF and CAP_PERFMON to its container (docker run --cap-add=BPF --cap-add=PERFMON), " +
			"pod (securityContext.capabilities.add) or service (systemd CapabilityBoundingSet)"
		namespace = "run it in the initial user namespace: as root on the host, " +
			"or in a container that is not rootless (docker run --userns=host --cap-add=BPF --cap-add=PERFMON)"
		seccomp = "let the seccomp profile permit the system call bpf (docker run --security-opt seccomp=PROFILE, systemd SystemCallFilter=bpf)"
		module  = "find the security module that refuses it (SELinux, AppArmor, BPF) in the kernel's log or the audit log"
	)
	for _, tt := range []struct {
		name   string
		p      process
		facts  string
		remedy string
	}{
		{"a user", process{known: true, uid: 7, bounded: all},
			"uid 7, without CAP_BPF and CAP_PERFMON, in the initial user namespace, without a seccomp filter", root},
		{"a user with half of it", process{known: true, uid: 7, bounded: all, effective: bits(unix.CAP_BPF)},
			"uid 7, without CAP_PERFMON, in the initial user namespace, without a seccomp filter", root},
		{"a user whose root would lack it", process{known: true, uid: 7, bounded: bits(unix.CAP_CHOWN)},
			"uid 7, without CAP_BPF and CAP_PERFMON, in the initial user namespace, without a seccomp filter", container},
		{"a user who cannot become root", process{known: true, uid: 7, bounded: all, noNewPrivs: true},
			"uid 7, without CAP_BPF and CAP_PERFMON, in the initial user namespace, without a seccomp filter", container},
		{"root of a container", process{known: true, hasSeccomp: true, bounded: bits(unix.CAP_CHOWN), effective: bits(unix.CAP_CHOWN)},
			"uid 0, without CAP_BPF and CAP_PERFMON, in the initial user namespace, under a seccomp filter", container},
		{"root of a user namespace", process{known: true, inUserNamespace: true, bounded: all, effective: all},
			"uid 0, with CAP_BPF and CAP_PERFMON, in a user namespace, where capabilities do not count for it, without a seccomp filter", namespace},
		{"root under seccomp", process{known: true, hasSeccomp: true, bounded: all, effective: all},
			"uid 0, with CAP_BPF and CAP_PERFMON, in the initial user namespace, under a seccomp filter", seccomp},
		{"an old container with CAP_SYS_ADMIN", process{known: true, bounded: bits(unix.CAP_SYS_ADMIN), effective: bits(unix.CAP_SYS_ADMIN)},
			"uid 0, with CAP_BPF and CAP_PERFMON, in the initial user namespace, without a seccomp filter", module},
		{"root in lockdown", process{known: true, lockdown: "confidentiality", bounded: all, effective: all},
			"uid 0, with CAP_BPF and CAP_PERFMON, in the initial user namespace, without a seccomp filter",
			"boot without lockdown=confidentiality; lockdown=integrity permits tracing"},
		{"root in a weaker lockdown", process{known: true, lockdown: "integrity", bounded: all, effective: all},
			"uid 0, with CAP_BPF and CAP_PERFMON, in the initial user namespace, without a seccomp filter", module},
		{"root, no /proc", process{}, "uid 0", container},
		{"a user, no /proc", process{uid: 7}, "uid 7", root},
	} {
		if got, want := bpf.problemOf(&tt.p), "this kernel does not permit BPF to this process ("+tt.facts+")"; got != want {
			t.Errorf("%s: the problem is\n%s\nwant\n%s", tt.name, got, want)
		}
		if got := bpf.remedyOf(&tt.p); got != tt.remedy {
			t.Errorf("%s: the remedy is\n%s\nwant\n%s", tt.name, got, tt.remedy)
		}
	}
}

// /proc/self/status is read as the kernel writes it.
func TestProcess_Parse(t *testing.T) {
	var p process
	p.parse("Name:\ttcpshift\nCapEff:\t000000c000000000\nCapBnd:\t000001ffffffffff\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n")
	want := process{known: true, effective: bits(unix.CAP_BPF, unix.CAP_PERFMON), bounded: all, noNewPrivs: true, hasSeccomp: true}
	if p != want {
		t.Errorf("got %+v, want %+v", p, want)
	}
}

// Capabilities are listed as a sentence lists them.
func TestJoin_AsASentence(t *testing.T) {
	for _, tt := range []struct {
		list []Capability
		want string
	}{
		{[]Capability{unix.CAP_SYS_PTRACE}, "CAP_SYS_PTRACE"},
		{[]Capability{unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_SYS_ADMIN}, "CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN"},
	} {
		if got := join(tt.list); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

// setcap replaces the capabilities of the binary: the remedy also names those that this
// process has.
func TestOperation_SetcapKeeps(t *testing.T) {
	bpf := Operation{Name: "BPF", Command: "tcpshift", SystemCall: "bpf", CommandCapabilities: []Capability{unix.CAP_BPF, unix.CAP_PERFMON}}
	user := process{known: true, uid: 7, bounded: all, effective: bits(unix.CAP_CHOWN, unix.CAP_PERFMON, unix.CAP_SYS_PTRACE)}
	const want = "run as root (sudo tcpshift), or let only a group that you trust execute the binary (chgrp GROUP, chmod 0750), and then give it CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE " +
		"(setcap cap_bpf,cap_perfmon,cap_sys_ptrace+ep)"
	if got := bpf.remedyOf(&user); got != want {
		t.Errorf("the remedy is\n%s\nwant\n%s", got, want)
	}
}

// The level of lockdown is read as the kernel writes it.
func TestLockdown_Parse(t *testing.T) {
	for text, want := range map[string]string{
		"[none] integrity confidentiality\n": "none",
		"none [integrity] confidentiality\n": "integrity",
		"none integrity [confidentiality]\n": "confidentiality",
		"":                                   "", "\n": "", "none\n": "",
	} {
		if got := parseLockdown(text); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}

// A process without a free descriptor gets the number and what to do; other errors stay.
func TestExplainLimit_OnlyEMFILE(t *testing.T) {
	if got := ExplainLimit(fmt.Errorf("open x: %w", unix.EMFILE)).Error(); !strings.HasPrefix(got, "open x: too many open files: this process may have ") ||
		!strings.HasSuffix(got, " files open: raise the limit (ulimit -n, or LimitNOFILE= of the unit)") {
		t.Error(got)
	}
	if got := ExplainLimit(unix.ENFILE); got.Error() != unix.ENFILE.Error() {
		t.Error(got)
	}
}
