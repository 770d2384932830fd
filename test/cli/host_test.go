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

	remedy      = "run as root (sudo tcpshift), or give the binary CAP_BPF and CAP_PERFMON (setcap cap_bpf,cap_perfmon+ep)"
	noBPF       = "BPF is not permitted to this user: " + remedy
	noTracing   = "BPF tracing programs are not permitted to this user: " + remedy
	noTypes     = "this kernel shows no type information at /sys/kernel/btf/vmlinux: " + noTypesHint
	noTypesHint = "mount sysfs, or use a kernel built with CONFIG_DEBUG_INFO_BTF=y"
)

// asNobody runs it without root and with these capabilities alone.
func asNobody(capabilities ...uintptr) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) {
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Credential:  &syscall.Credential{Uid: nobody, Gid: nobody},
			AmbientCaps: capabilities,
		}
	}
}

func TestHost_CannotTrace(t *testing.T) {
	requireRoot(t)
	for _, row := range []struct {
		name    string
		thread  func() error // what is done to the thread that starts it
		adjust  func(*exec.Cmd)
		line    string
		missing string // of doctor's lines, the one that says no
	}{
		{"as nobody, without capabilities", nil, asNobody(), unprivileged(t), ""},
		{"as nobody, with CAP_BPF only", nil, asNobody(unix.CAP_BPF), noTracing,
			"programs load, attach and report a real transition"},
		{"as root, without capabilities", dropCapabilities, nil, unprivileged(t), ""},
		{"without /sys/kernel/btf", func() error { return privateMount("/sys/kernel/btf", "") }, nil, noTypes,
			"kernel type information (BTF)"},
		{"without /sys", func() error { return privateMount("/sys", "") }, nil, noTypes, "kernel type information (BTF)"},
	} {
		start := func(t *testing.T, args ...string) (r result) {
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
			r.mustSay(t, row.line)
		})
		t.Run(row.name+": doctor", func(t *testing.T) {
			r := start(t, "doctor")
			r.mustEnd(t, 3)
			r.mustSay(t, row.line)
			problem, remedy, _ := strings.Cut(row.line, ": ")
			r.mustDiagnose(t, row.missing, problem, remedy)
		})
	}
}

// A process that is there, but is not for this user to look at, is not said to be gone.
func TestHost_HiddenProcess(t *testing.T) {
	requireRoot(t)
	mine := fmt.Sprintf("pid:%d", os.Getpid())
	for _, command := range [][]string{nil, {"snapshot"}} {
		r := run(append(command, "--netns", mine), asNobody())
		r.mustEnd(t, 2)
		r.mustPrintNothing(t)
		r.mustSay(t, fmt.Sprintf("--netns: %q: this user may not look at process %d: run as root", mine, os.Getpid()))
	}
}

// unprivileged is what stops a user without capabilities first.
func unprivileged(t *testing.T) string {
	t.Helper()
	disabled, err := os.ReadFile("/proc/sys/kernel/unprivileged_bpf_disabled")
	if err == nil && strings.TrimSpace(string(disabled)) == "0" {
		return noTracing // it may make a ring buffer
	}
	return noBPF
}

// mustDiagnose expects yes for all but the last requirement, and then no. An empty
// name stands for any.
func (r result) mustDiagnose(t *testing.T, name, problem, remedy string) {
	t.Helper()
	diagnosis := strings.Split(r.stdout, "\n")
	for len(diagnosis) > 0 && strings.HasPrefix(diagnosis[0], "yes  ") {
		diagnosis = diagnosis[1:]
	}
	if len(diagnosis) == 0 || !strings.HasPrefix(diagnosis[0], "no   "+name) {
		t.Fatalf("doctor does not say no to %q\n%v", name, r)
	}
	want := "     reason: " + problem + "\n     remedy: " + remedy + "\n"
	if got := strings.Join(diagnosis[1:], "\n"); got != want {
		t.Errorf("doctor does not go on with reason and remedy\nwant:\n%s\n%v", want, r)
	}
}

func TestDoctor_AllYes(t *testing.T) {
	requireRoot(t)
	for name, adjust := range map[string]func(*exec.Cmd){
		"as root": func(*exec.Cmd) {},
		"as nobody, with CAP_BPF and CAP_PERFMON":     asNobody(unix.CAP_BPF, unix.CAP_PERFMON),
		"as nobody, with file capabilities on a copy": withFileCapabilities(t),
	} {
		t.Run(name, func(t *testing.T) {
			r := run([]string{"doctor"}, adjust)
			r.mustEnd(t, 0)
			r.mustSay(t, "")
			lines := mandatory(strings.Split(strings.TrimSuffix(r.stdout, "\n"), "\n"))
			for _, line := range lines {
				if !strings.HasPrefix(line, "yes  ") {
					t.Errorf("doctor does not say yes: %q\n%v", line, r)
				}
			}
			if len(lines) < 4 {
				t.Errorf("doctor looks at next to nothing\n%v", r)
			}
		})
	}
}

// mandatory leaves out what a kernel under lockdown refuses even to root: one line
// with the name, and three that say why, at what cost, and the remedy.
func mandatory(lines []string) []string {
	at := slices.Index(lines, "no   accept_hook")
	if at < 0 || len(lines) < at+4 {
		return lines
	}
	return slices.Delete(lines, at, at+4)
}

func TestHost_TwoCapabilities(t *testing.T) {
	requireRoot(t)
	for name, adjust := range map[string]func(*exec.Cmd){
		"inherited":               asNobody(unix.CAP_BPF, unix.CAP_PERFMON),
		"of the file, as advised": withFileCapabilities(t),
	} {
		t.Run(name, func(t *testing.T) {
			s := startTracer(t, append(quiet, "--stats-interval", "1ms"), adjust).stop()
			if len(s.of("stats")) == 0 {
				t.Errorf("no stats\n%v", s.result)
			}
		})
	}
}

// withFileCapabilities does what the remedy says, to a copy of the binary.
func withFileCapabilities(t *testing.T) func(*exec.Cmd) {
	t.Helper()
	content, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	// Beside the original: the test's own directory is not for nobody to enter.
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
		missing(t, "needs a temporary directory whose file system keeps capabilities: "+err.Error())
	}
	return func(cmd *exec.Cmd) {
		asNobody()(cmd)
		cmd.Path = path
	}
}

// capabilityAttribute is a struct vfs_cap_data (include/uapi/linux/capability.h).
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
