package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// droppedEnv makes the test binary drop its privileges, try what needs some, and end.
const droppedEnv = "TCPSHIFT_TEST_DROPPED"

func TestMain(m *testing.M) {
	if features := os.Getenv(droppedEnv); features != "" {
		tryWithout(Features{Maps: true, Namespaces: features == "namespaces", Command: features == "command"})
		return
	}
	if name := os.Getenv(restrictedEnv); name != "" {
		tryRestricted(name)
		return
	}
	os.Exit(m.Run())
}

// attempts are system calls that need a capability.
var attempts = []struct {
	name string
	of   cap.Value
	try  func() error
}{
	{"kill a process of another user", cap.KILL, func() error { return unix.Kill(otherUser(), 0) }},
	{"change the owner of a file", cap.CHOWN, func() error { return os.Chown(os.Args[1], 1, 1) }},
	{"write a file of another user", cap.DAC_OVERRIDE, func() error { return os.WriteFile(os.Args[2], nil, 0) }},
	{"read a file of another user", cap.DAC_READ_SEARCH, func() error { _, err := os.ReadFile(os.Args[2]); return err }},
	{"become another user", cap.SETUID, func() error { return unix.Setresuid(-1, 65534, -1) }},
	{"listen on port 1", cap.NET_BIND_SERVICE, listenOnPort1},
	{"open a raw socket", cap.NET_RAW, func() error { return closed(unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_TCP)) }},
	{"mark packets", cap.NET_ADMIN, markPackets},
	{"mount", cap.SYS_ADMIN, func() error { return unix.Mount("none", os.Args[3], "tmpfs", 0, "") }},
	{"enter a network namespace", cap.SYS_ADMIN, enterOwnNetns},
	{"see the namespace of another user's process", cap.SYS_PTRACE, func() error { _, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", otherUser())); return err }},
	{"make a BPF map", cap.BPF, makeMap},
	{"set the clock", cap.SYS_TIME, func() error { _, err := unix.Adjtimex(&unix.Timex{Modes: unix.ADJ_TICK}); return err }},
	{"reboot", cap.SYS_BOOT, func() error { return unix.Reboot(-1) }},
}

func otherUser() (pid int) {
	_, _ = fmt.Sscan(os.Args[4], &pid)
	return pid
}

func closed(fd int, err error) error {
	if err == nil {
		err = unix.Close(fd)
	}
	return err
}

func listenOnPort1() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Bind(fd, &unix.SockaddrInet4{Port: 1, Addr: [4]byte{127, 0, 0, 1}})
}

func markPackets() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, 1)
}

// makeMap makes a map of a type that only CAP_BPF permits (map_create in kernel/bpf/syscall.c).
func makeMap() error {
	attr := struct{ mapType, keySize, valueSize, maxEntries uint32 }{unix.BPF_MAP_TYPE_LRU_HASH, 4, 4, 1}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_MAP_CREATE, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return errno
	}
	return unix.Close(int(fd))
}

func enterOwnNetns() error {
	f, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
}

// tryWithout prints what is permitted after the drop, one name a line, then the status of each
// thread, then what a program of root's that it executes has.
func tryWithout(f Features) {
	for range 4 { // threads that wait in system calls
		go func() {
			var fds [2]int
			_ = unix.Pipe(fds[:])
			_, _ = unix.Read(fds[0], make([]byte, 1))
		}()
	}
	time.Sleep(50 * time.Millisecond)
	if err := DropPrivileges(f); err != nil {
		fmt.Println("error:", err)
	}
	for _, a := range attempts {
		if err := a.try(); !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
			fmt.Println("permitted:", a.name)
		}
	}
	threads, _ := filepath.Glob("/proc/self/task/*/status")
	for _, path := range threads {
		printCapabilities("thread", path)
	}
	child := exec.Command("grep", "-E", "^(Cap|NoNew)", "/proc/self/status")
	text, err := child.Output()
	fmt.Printf("child: %s %v\n", strings.Join(strings.Fields(string(text)), " "), err)
}

func printCapabilities(what, path string) {
	text, _ := os.ReadFile(path)
	var fields []string
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "Cap") || strings.HasPrefix(line, "NoNew") {
			fields = append(fields, strings.Fields(line)...)
		}
	}
	fmt.Printf("%s: %s\n", what, strings.Join(fields, " "))
}

// After the drop exactly what the features need is permitted, in every thread, and a program
// that root executes has no more.
func TestDropPrivileges_WhatIsLeft(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it drops privileges")
	}
	for name, f := range map[string]Features{"maps": {Maps: true}, "namespaces": {Maps: true, Namespaces: true}, "command": {Maps: true, Command: true}} {
		t.Run(name, func(t *testing.T) {
			report := runDropped(t, name)
			var want uint64
			for _, value := range f.Capabilities() {
				want |= 1 << value
			}
			set := fmt.Sprintf("%016x", want)
			status := "CapInh: 0000000000000000 CapPrm: " + set + " CapEff: " + set + " CapBnd: " + set + " CapAmb: 0000000000000000 NoNewPrivs: 1"
			threads := 0
			for _, line := range report {
				what, rest, _ := strings.Cut(line, ": ")
				switch what {
				case "thread":
					threads++
					if rest != status {
						t.Errorf("a thread has %s\nwant %s", rest, status)
					}
				case "child":
					if rest != status+" <nil>" {
						t.Errorf("a program that it executes has %s\nwant %s", rest, status)
					}
				case "error":
					t.Error(rest)
				}
			}
			if threads < 5 {
				t.Errorf("%d threads, want 5 at least\n%s", threads, strings.Join(report, "\n"))
			}
			for _, a := range attempts {
				permitted := slices.Contains(report, "permitted: "+a.name)
				if kept := slices.Contains(f.Capabilities(), a.of); permitted != kept {
					t.Errorf("permitted to %s: %v, want %v", a.name, permitted, kept)
				}
			}
		})
	}
}

// runDropped runs this binary as root with the files and processes that attempts need.
func runDropped(t *testing.T, features string) []string {
	t.Helper()
	dir := t.TempDir()
	own, others := filepath.Join(dir, "own"), filepath.Join(dir, "others")
	for _, path := range []string{own, others} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const nobody = 65534
	if err := os.Chown(others, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	other := exec.Command("sleep", "1000")
	other.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = other.Process.Kill(), other.Wait() })
	child := exec.Command("/proc/self/exe", own, others, dir, fmt.Sprint(other.Process.Pid))
	child.Env = append(os.Environ(), droppedEnv+"="+features)
	child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET} // for what must not happen
	out, err := child.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// docs/kernels.md has the capabilities that stay, and no others.
func TestCapabilities_Documented(t *testing.T) {
	text, err := os.ReadFile("../../docs/kernels.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "\n| what stays | for what |\n")
	table, _, _ = strings.Cut(table, "\n\n")
	for condition, f := range map[string]Features{
		"before Linux 5.19": {Maps: true}, "if alerts, updates or metrics are on": {Namespaces: true},
		"if process records or the schemas `ecs` or `otel` are on": {Processes: true}, "if a command is traced": {Command: true},
		"if there is `--config`, without `--sandbox`": {Programs: true},
	} {
		var got, want []string
		for line := range strings.Lines(table) {
			if what := strings.Split(line, "|")[1]; strings.HasSuffix(strings.TrimSpace(what), condition) {
				got = append(got, regexp.MustCompile("CAP_[A-Z_]+").FindAllString(what, -1)...)
			}
		}
		for _, value := range f.Capabilities() {
			want = append(want, strings.ToUpper(value.String()))
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s %v stay, docs/kernels.md has %v", condition, want, got)
		}
	}
	if all := regexp.MustCompile("CAP_[A-Z_]+").FindAllString(table, -1); len(all) != 8 {
		t.Errorf("docs/kernels.md has the capabilities %v, want 8", all)
	}
}
