package cli_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	nobody = 65534

	asRoot    = "run as root (sudo tcpshift), or let only a group that you trust execute the binary (chgrp GROUP, chmod 0750), and then give it CAP_BPF and CAP_PERFMON (setcap cap_bpf,cap_perfmon+ep)"
	container = "give CAP_BPF and CAP_PERFMON to its container (docker run --cap-add=BPF --cap-add=PERFMON), " +
		"pod (securityContext.capabilities.add) or service (systemd CapabilityBoundingSet)"
	hostRoot = "run it in the initial user namespace: as root on the host, " +
		"or in a container that is not rootless (docker run --userns=host --cap-add=BPF --cap-add=PERFMON)"
	seccomp     = "let the seccomp profile permit the system call bpf (docker run --security-opt seccomp=PROFILE, systemd SystemCallFilter=bpf)"
	noTypes     = "this kernel shows no type information at /sys/kernel/btf/vmlinux: " + noTypesHint
	noTypesHint = "mount sysfs, or use a kernel built with CONFIG_DEBUG_INFO_BTF=y"
)

// refusesBPF is the line about a kernel that refuses BPF to a process of which these facts
// are true.
func refusesBPF(facts, remedy string) string {
	return "this kernel does not permit BPF to this process (" + facts + "): " + remedy
}

// noCapability is the line about a process of this user that lacks both.
func noCapability(uid int, remedy string) string {
	return refusesBPF(fmt.Sprintf("uid %d, without CAP_BPF and CAP_PERFMON, in the initial user namespace, without a seccomp filter", uid), remedy)
}

// tooFewFiles is the line about a process that may open only so many files.
func tooFewFiles(limit int) string {
	return fmt.Sprintf("this process may have only %d files open, too few for the programs and their maps: "+
		"raise the limit (ulimit -n, or LimitNOFILE= of the unit)", limit)
}

// asNobody runs the binary as nobody, with these capabilities only.
func asNobody(capabilities ...uintptr) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) {
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Credential:  &syscall.Credential{Uid: nobody, Gid: nobody},
			AmbientCaps: capabilities,
		}
	}
}

// A host on which tracing is impossible gets one sentence with the remedy, and doctor
// the reason.
func TestHost_CannotTrace(t *testing.T) {
	requireRoot(t)
	const loaded = "programs load, attach and report a real transition"
	withSeccomp := refusesBPF("uid 0, with CAP_BPF and CAP_PERFMON, in the initial user namespace, under a seccomp filter", seccomp)
	for _, row := range []struct {
		name    string
		thread  func() error // what to do to the thread that starts the binary
		adjust  func(*exec.Cmd)
		line    string
		missing string // the line of doctor with no
	}{
		{"as nobody, without capabilities", nil, asNobody(), noCapability(nobody, asRoot), ""},
		{"as nobody, with CAP_BPF only", nil, asNobody(unix.CAP_BPF),
			refusesBPF("uid 65534, without CAP_PERFMON, in the initial user namespace, without a seccomp filter", asRoot), loaded},
		{"as nobody, with CAP_PERFMON only", nil, asNobody(unix.CAP_PERFMON),
			refusesBPF("uid 65534, without CAP_BPF, in the initial user namespace, without a seccomp filter", asRoot), ""},
		{"as nobody, in a container without both", dropCapabilities, asNobody(), noCapability(nobody, container), ""},
		{"as root, without capabilities", dropCapabilities, nil, noCapability(0, container), ""},
		{"as root of a user namespace", nil, inUserNamespace, refusesBPF("uid 0, with CAP_BPF and CAP_PERFMON, "+
			"in a user namespace, where capabilities do not count for it, without a seccomp filter", hostRoot), ""},
		{"as root, bpf() is EPERM", func() error { return refuseSystemCall(unix.SYS_BPF, unix.EPERM) }, nil, withSeccomp, ""},
		{"as root, bpf() is EACCES", func() error { return refuseSystemCall(unix.SYS_BPF, unix.EACCES) }, nil, withSeccomp, ""},
		{"as root, bpf() is ENOSYS", func() error { return refuseSystemCall(unix.SYS_BPF, unix.ENOSYS) }, nil, withSeccomp, ""},
		{"without /sys/kernel/btf", func() error { return privateMount("/sys/kernel/btf", "") }, nil, noTypes,
			"kernel type information (BTF)"},
		{"without /proc", func() error { return privateMount("/proc", "") }, nil, "there is no /proc: mount it (mount -t proc proc /proc)", "/proc is mounted"},
		{"with 12 descriptors", nil, withLimit(12), tooFewFiles(12), loaded},
		{"with 40 descriptors", nil, withLimit(40), tooFewFiles(40), loaded},
		{"without /sys", func() error { return privateMount("/sys", "") }, nil, noTypes, "kernel type information (BTF)"},
	} {
		start := func(t *testing.T, args ...string) (r result) {
			t.Helper()
			skipIfRefused(t, row.adjust)
			err := onThread(func() error {
				if row.thread != nil {
					if err := row.thread(); err != nil {
						return err
					}
				}
				if row.adjust != nil {
					r = run(args, row.adjust)
				} else {
					r = run(args)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		t.Run(row.name+": trace", func(t *testing.T) {
			r := start(t, "--duration", "1ms")
			r.mustEnd(t, 3)
			r.mustPrintNothing(t)
			r.mustPrintError(t, row.line)
		})
		t.Run(row.name+": doctor", func(t *testing.T) {
			r := start(t, "doctor")
			r.mustEnd(t, 3)
			r.mustPrintError(t, row.line)
			problem, remedy, _ := strings.Cut(row.line, ": ")
			r.mustDiagnose(t, row.missing, problem, remedy)
		})
	}
}

// skipIfRefused skips the test where the kernel does not even start a process so: it
// permits a new user namespace neither in a chroot nor where user.max_user_namespaces is 0.
func skipIfRefused(t *testing.T, adjust func(*exec.Cmd)) {
	t.Helper()
	if adjust == nil {
		return
	}
	cmd := exec.Command("/bin/true")
	adjust(cmd)
	if err := cmd.Run(); errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC) {
		t.Skipf("start a process: %v", err)
	}
}

// A process that this user may not inspect is not reported as one that does not exist.
func TestHost_HiddenProcess(t *testing.T) {
	requireRoot(t)
	mine := fmt.Sprintf("pid:%d", os.Getpid())
	for _, command := range [][]string{nil, {"snapshot"}} {
		r := run(append(command, "--netns", mine), asNobody())
		r.mustEnd(t, 2)
		r.mustPrintNothing(t)
		r.mustPrintError(t, fmt.Sprintf("--netns: %q: this kernel does not permit inspecting process %d to this process "+
			"(uid %d, without CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE, in the initial user namespace, without a seccomp filter): "+
			"run as root (sudo tcpshift), or let only a group that you trust execute the binary (chgrp GROUP, chmod 0750), "+
			"and then give it CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE (setcap cap_bpf,cap_perfmon,cap_sys_ptrace+ep)", mine, os.Getpid(), nobody))
	}
}

// A process that can open no further file does not report that there is no process.
func TestHost_NoDescriptorForProcess(t *testing.T) {
	requireRoot(t)
	mine := fmt.Sprintf("pid:%d", os.Getpid())
	for limit := 10; limit > 3; limit-- { // what the runtime has open differs by version and by what the test has
		r := run(flags("--netns", mine, "--duration", "1ms"), withLimit(limit))
		if strings.Contains(r.stderr, "there is no process") {
			t.Errorf("with %d descriptors:\n%v", limit, r)
		}
	}
}

// In another pid namespace doctor, the start record and one message say that pids are not those
// that the reader sees.
func TestHost_OwnPIDNamespace(t *testing.T) {
	requireRoot(t)
	const reason, remedy = "this process is in a pid namespace of its own", "run it in the host's pid namespace (docker run --pid=host, pod spec.hostPID: true)"
	apart := func(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID} }
	tr := startTracer(t, quiet, apart)
	if got := featuresOf(t, tr.started)["host_pids"]; got != reason {
		t.Errorf("host_pids is %v, want %s", got, reason)
	}
	tr.signal(syscall.SIGTERM)
	r := tr.wait()
	r.mustEnd(t, 0)
	if lines := strings.Split(r.stderr, "\n"); len(lines) != 2 || !strings.HasPrefix(lines[0], "tcpshift: "+reason+": ") || !strings.HasSuffix(lines[0], ": "+remedy) {
		t.Errorf("want one message\n%v", r)
	}
	r = run(flags("doctor"), apart)
	r.mustEnd(t, 0)
	if !strings.Contains(r.stdout, "\nno   host_pids\n     reason: "+reason+"\n") || !strings.Contains(r.stdout, "\n     remedy: "+remedy+"\n") {
		t.Errorf("want no to host_pids\n%v", r)
	}
	if r = run(flags("doctor")); !strings.Contains(r.stdout, "\nyes  host_pids\n") {
		t.Errorf("want yes to host_pids in the initial pid namespace\n%v", r)
	}
}

// mustDiagnose expects yes for all requirements but the last one, which is no. An empty
// name stands for any.
func (r result) mustDiagnose(t *testing.T, name, problem, remedy string) {
	t.Helper()
	diagnosis := strings.Split(r.stdout, "\n")
	for len(diagnosis) > 0 && strings.HasPrefix(diagnosis[0], "yes  ") {
		diagnosis = diagnosis[1:]
	}
	if len(diagnosis) == 0 || !strings.HasPrefix(diagnosis[0], "no   "+name) {
		t.Fatalf("want no to %q from doctor\n%v", name, r)
	}
	want := "     reason: " + problem + "\n     remedy: " + remedy + "\n"
	if got := strings.Join(diagnosis[1:], "\n"); got != want {
		t.Errorf("doctor prints another reason or remedy\nwant:\n%s\n%v", want, r)
	}
}

// If tracing works, doctor prints yes for every requirement.
func TestDoctor_AllYes(t *testing.T) {
	requireRoot(t)
	for name, adjust := range map[string]func(*exec.Cmd){
		"as root":                func(*exec.Cmd) {},
		"as root of a container": withBoundingSet(unix.CAP_BPF, unix.CAP_PERFMON),
		"as nobody, with CAP_BPF and CAP_PERFMON":     asNobody(unix.CAP_BPF, unix.CAP_PERFMON),
		"as nobody, with file capabilities on a copy": withFileCapabilities(t),
	} {
		t.Run(name, func(t *testing.T) {
			r := run([]string{"doctor"}, adjust)
			r.mustEnd(t, 0)
			r.mustPrintError(t, "")
			lines := mandatory(strings.Split(strings.TrimSuffix(r.stdout, "\n"), "\n"))
			for _, line := range lines {
				if !strings.HasPrefix(line, "yes  ") {
					t.Errorf("want yes from doctor: %q\n%v", line, r)
				}
			}
			if len(lines) < 4 || !slices.Contains(lines, "yes  metrics_sockets") {
				t.Errorf("doctor lists too few requirements\n%v", r)
			}
		})
	}
}

// mandatory removes from doctor's lines what these processes may lack: the accept hook, which a
// kernel under lockdown refuses even to root, the namespaces of others, and Landlock. Each has one
// line with the name, and three with reason, cost and remedy.
func mandatory(lines []string) []string {
	for _, name := range []string{"accept_hook", "other_namespaces", "sandbox_landlock"} {
		if at := slices.Index(lines, "no   "+name); at >= 0 && len(lines) >= at+4 {
			lines = slices.Delete(lines, at, at+4)
		}
	}
	return lines
}

// A process that may trace, but not enter the network namespaces of others, reports that in its
// start record, and doctor has the remedy.
func TestHost_NoOtherNamespaces(t *testing.T) {
	requireRoot(t)
	const refused = "this kernel does not permit finding and entering the network namespaces of others to this process "
	for name, tt := range map[string]struct {
		adjust         func(*exec.Cmd)
		thread         func() error
		reason, remedy string
	}{
		"in a container": {adjust: withBoundingSet(unix.CAP_BPF, unix.CAP_PERFMON),
			reason: refused + "(uid 0, without CAP_SYS_ADMIN, CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, in the initial user namespace, without a seccomp filter)",
			remedy: "--cap-add=SYS_ADMIN --cap-add=SYS_PTRACE --cap-add=DAC_READ_SEARCH)"},
		"setns() is EPERM": {thread: func() error { return refuseSystemCall(unix.SYS_SETNS, unix.EPERM) },
			reason: refused + "(uid 0, with CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN, CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, in the initial user namespace, under a seccomp filter)",
			remedy: "let the seccomp profile permit the system call setns"},
		"as root": {},
	} {
		t.Run(name, func(t *testing.T) {
			var traced, diagnosed result
			err := onThread(func() error {
				if tt.thread != nil {
					if err := tt.thread(); err != nil {
						return err
					}
				}
				adjust := tt.adjust
				if adjust == nil {
					adjust = func(*exec.Cmd) {}
				}
				traced, diagnosed = run(append(quiet, "--duration", "1ms"), adjust), run(flags("doctor"), adjust)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			traced.mustEnd(t, 0)
			traced.mustPrintError(t, "")
			start, _, _ := strings.Cut(traced.stdout, "\n")
			if got := featuresOf(t, start)["other_namespaces"]; tt.reason != "" && got != tt.reason || tt.reason == "" && got != true {
				t.Errorf("other_namespaces is %v, want %s", got, tt.reason)
			}
			diagnosed.mustEnd(t, 0)
			if !strings.Contains(diagnosed.stdout, tt.reason) || !strings.Contains(diagnosed.stdout, tt.remedy) {
				t.Errorf("want the reason %s\nand the remedy %s\n%v", tt.reason, tt.remedy, diagnosed)
			}
		})
	}
}

// CAP_BPF and CAP_PERFMON are enough to trace.
func TestHost_TwoCapabilities(t *testing.T) {
	requireRoot(t)
	for name, adjust := range map[string]func(*exec.Cmd){
		"inherited":               asNobody(unix.CAP_BPF, unix.CAP_PERFMON),
		"of the file, as advised": withFileCapabilities(t),
	} {
		t.Run(name, func(t *testing.T) {
			s := startTracer(t, append(quiet, "--stats-interval", "1ms"), adjust).stop()
			if len(s.of("stats")) == 0 {
				t.Errorf("want a stats record\n%v", s.result)
			}
		})
	}
}

// withFileCapabilities copies the binary and applies doctor's remedy to the copy.
func withFileCapabilities(t *testing.T) func(*exec.Cmd) {
	t.Helper()
	content, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	// Beside the original: nobody may not enter the test's own directory.
	dir, err := os.MkdirTemp(filepath.Dir(program), "capable-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "tcpshift")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(path, content, 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(path, "security.capability", capabilityAttribute(unix.CAP_BPF, unix.CAP_PERFMON), 0); err != nil {
		skipMissing(t, "needs a temporary directory whose file system keeps capabilities: "+err.Error())
	}
	return func(cmd *exec.Cmd) {
		asNobody()(cmd)
		cmd.Path = path
	}
}

// capabilityAttribute encodes a struct vfs_cap_data (include/uapi/linux/capability.h).
func capabilityAttribute(capabilities ...int) []byte {
	const revision2, effective = 0x02000000, 1
	var permitted [2]uint32
	for _, c := range capabilities {
		permitted[c/32] |= 1 << (c % 32)
	}
	var b []byte
	for _, word := range []uint32{revision2 | effective, permitted[0], 0, permitted[1], 0} {
		b = binary.LittleEndian.AppendUint32(b, word)
	}
	return b
}
