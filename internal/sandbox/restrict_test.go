package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// restrictedEnv makes the test binary drop its privileges, restrict itself as for one of
// restrictedFeatures, try what a sandbox should refuse, and end.
const restrictedEnv = "TCPSHIFT_TEST_RESTRICTED"

// restrictedFeatures are the features of a trace, by a name. The directory is that of the output.
func restrictedFeatures(name, directory string) Features {
	f := Features{Maps: true, Namespaces: strings.Contains(name, "alerts"), Command: strings.Contains(name, "command")}
	if strings.Contains(name, "file") {
		f.Reopen = []string{directory}
	}
	if strings.Contains(name, "rotated") {
		f.Rotate = []string{directory}
	}
	if strings.Contains(name, "spool") {
		f.Spool = []string{directory}
	}
	if strings.Contains(name, "remote") {
		f.Unix, f.TCP = []string{directory + "/socket"}, []string{"127.0.0.1:1"}
	}
	return f
}

// tries are what a program that an attacker controls would do, and what a trace does. Each is
// permitted for the features in permitted, and refused for all others.
var tries = []struct {
	name      string
	try       func() error
	permitted string
}{
	{"execute a program", func() error { return unix.Exec("/bin/true", []string{"true"}, nil) }, ""},
	{"execute a program by descriptor", func() error { return call(unix.SYS_EXECVEAT, ^uintptr(99), 0, 0, 0, 0, 0) }, ""},
	{"fork", fork, ""},
	{"fork by clone3", func() error { return call(unix.SYS_CLONE3, 0, 0, 0, 0, 0, 0) }, ""},
	{"read /etc/shadow", func() error { return opens("/etc/shadow", unix.O_RDONLY) }, "alerts; alerts, file"},
	{"read /proc/self/status", func() error { return opens("/proc/self/status", unix.O_RDONLY) }, "alerts; alerts, file"},
	{"write a file", func() error { return opens(os.Args[1]+"/elsewhere/file", unix.O_WRONLY) }, "alerts, file"},
	{"write a file by openat2", openat2ForWriting, ""},
	{"write to the output's directory", func() error { return opens(os.Args[1]+"/out/file", unix.O_WRONLY|unix.O_APPEND) }, "file; alerts, file; file, rotated; spool"},
	{"make a file", func() error { return opens(os.Args[1]+"/elsewhere/made", unix.O_WRONLY|unix.O_CREAT) }, "alerts, file"},
	{"make a file in the output's directory", func() error { return opens(os.Args[1]+"/out/made", unix.O_WRONLY|unix.O_CREAT) }, "file; alerts, file; file, rotated; spool"},
	{"make an unnamed file", func() error { return opens(os.Args[1], unix.O_RDWR|unix.O_TMPFILE) }, "alerts, file"},
	{"write the memory of another process", func() error { return opens("/proc/"+os.Args[2]+"/mem", unix.O_RDWR) }, "alerts, file"},
	{"remove a file", func() error { return unix.Unlink(os.Args[1] + "/elsewhere/file") }, ""},
	{"rename a file", func() error { return unix.Rename(os.Args[1]+"/elsewhere/file", os.Args[1]+"/elsewhere/other") }, ""},
	{"rename a file elsewhere by descriptor", func() error { return renames("elsewhere") }, ""},
	{"rename a file of the output's directory", func() error { return renames("out") }, "file, rotated"},
	{"move a file out of the output's directory", func() error {
		return unix.Renameat(unix.AT_FDCWD, os.Args[1]+"/out/file", unix.AT_FDCWD, os.Args[1]+"/elsewhere/moved")
	}, ""},
	{"read an old file", func() error { return opens(os.Args[1]+"/out/file", unix.O_RDONLY) }, "alerts; alerts, file; file, rotated; spool"},
	{"read a file elsewhere", func() error { return opens(os.Args[1]+"/elsewhere/file", unix.O_RDONLY) }, "alerts; alerts, file"},
	{"list the output's directory", func() error { return opens(os.Args[1]+"/out", unix.O_RDONLY|unix.O_DIRECTORY) }, "alerts; alerts, file; file, rotated; spool"},
	{"remove a file elsewhere by descriptor", func() error { return removes("elsewhere") }, ""},
	{"remove an old file", func() error { return removes("out") }, "file, rotated; spool"},
	{"make a directory", func() error { return unix.Mkdir(os.Args[1]+"/out/directory", 0o700) }, ""},
	{"make a link", func() error { return unix.Symlink("/etc", os.Args[1]+"/out/link") }, ""},
	{"change a mode", func() error { return unix.Chmod(os.Args[1]+"/out/file", 0o777) }, ""},
	{"open by handle", func() error { return call(unix.SYS_OPEN_BY_HANDLE_AT, 0, 0, 0, 0, 0, 0) }, ""},
	{"trace a process", func() error { return unix.PtraceAttach(otherProcess()) }, ""},
	{"read the memory of another process", func() error { return call(unix.SYS_PROCESS_VM_READV, uintptr(otherProcess()), 0, 0, 0, 0, 0) }, ""},
	{"take a descriptor of another process", func() error { return call(unix.SYS_PIDFD_GETFD, 0, 0, 0, 0, 0, 0) }, ""},
	{"end another process", func() error { return unix.Kill(otherProcess(), unix.SIGTERM) }, ""},
	{"signal a process by a descriptor from before", func() error { return unix.PidfdSendSignal(otherPidfd, unix.SIGCONT, nil, 0) }, "command"},
	{"see the namespace of another process", func() error { _, err := os.Readlink("/proc/" + os.Args[2] + "/ns/net"); return err }, "alerts; alerts, file"},
	{"connect", func() error { return closed(unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)) }, "remote"},
	{"connect to the output's port", func() error { return ignore(connectTo(1)) }, "remote"},
	{"connect to another port", func() error { return ignore(connectTo(2)) }, ""},
	{"connect to a local service", func() error { return closed(unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)) }, "remote"},
	{"listen to packets", func() error { return closed(unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)) }, ""},
	{"change routes", func() error { return closed(unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)) }, ""},
	{"list sockets", func() error { return closed(unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_SOCK_DIAG)) }, "alerts; alerts, file"},
	{"enter a network namespace", enterNamespace("net", unix.CLONE_NEWNET), "alerts; alerts, file"},
	{"enter a mount namespace", enterNamespace("mnt", unix.CLONE_NEWNS), ""},
	{"enter any namespace", enterNamespace("net", 0), ""},
	{"make a namespace", func() error { return unix.Unshare(unix.CLONE_NEWNET) }, ""},
	{"mount", func() error { return unix.Mount("none", os.Args[1], "tmpfs", 0, "") }, ""},
	{"mount by the new calls", func() error { return closed(unix.Fsopen("tmpfs", 0)) }, ""},
	{"change the root", func() error { return unix.Chroot(os.Args[1]) }, ""},
	{"make a BPF map", func() error { return call(unix.SYS_BPF, unix.BPF_MAP_CREATE, 0, 0, 0, 0, 0) }, ""},
	{"load a BPF program", func() error { return call(unix.SYS_BPF, unix.BPF_PROG_LOAD, 0, 0, 0, 0, 0) }, ""},
	{"find the BPF programs of others", func() error { return call(unix.SYS_BPF, unix.BPF_PROG_GET_FD_BY_ID, 0, 0, 0, 0, 0) }, ""},
	{"use perf events", func() error { return call(unix.SYS_PERF_EVENT_OPEN, 0, 0, 0, 0, 0, 0) }, ""},
	{"use io_uring", func() error { return call(unix.SYS_IO_URING_SETUP, 1, 0, 0, 0, 0, 0) }, ""},
	{"load a module", func() error { return unix.InitModule(nil, "") }, ""},
	{"load a kernel", func() error { return call(unix.SYS_KEXEC_LOAD, 0, 0, 0, 0, 0, 0) }, ""},
	{"reboot", func() error { return unix.Reboot(-1) }, ""},
	{"use keys", func() error { return call(unix.SYS_ADD_KEY, 0, 0, 0, 0, 0, 0) }, ""},
	{"handle page faults", func() error { return call(unix.SYS_USERFAULTFD, 0, 0, 0, 0, 0, 0) }, ""},
	{"map memory that can be executed", func() error {
		_, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_ANON|unix.MAP_PRIVATE)
		return err
	}, ""},
	{"type into a terminal", func() error { return call(unix.SYS_IOCTL, 0, unix.TIOCSTI, 0, 0, 0, 0) }, ""},
	{"become another user", func() error { return unix.Setresuid(-1, 65534, -1) }, ""},
	{"raise a limit", func() error { return unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1024, Max: 1024}) }, ""},
	{"make a second filter", func() error { return call(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, 0, 0, 0, 0) }, ""},

	{"look at a terminal", func() error { return ignore(call(unix.SYS_IOCTL, 0, unix.TIOCGWINSZ, 0, 0, 0, 0)) }, everywhere},
	{"see whether a process exists", func() error { return unix.Kill(os.Getpid(), 0) }, everywhere},
	{"read a BPF map", func() error { return ignore(call(unix.SYS_BPF, unix.BPF_MAP_LOOKUP_ELEM, 0, 0, 0, 0, 0)) }, everywhere},
	{"start threads", startThreads, everywhere},
	{"allocate", func() error { _ = make([]byte, 64<<20); return nil }, everywhere},
	{"read a limit", func() error { return unix.Getrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{}) }, everywhere},
	{"signal itself", func() error { return unix.Kill(os.Getpid(), unix.SIGCONT) }, everywhere},
}

const everywhere = "nothing; file; alerts; alerts, file; remote; file, rotated; spool; command"

// otherPidfd is a descriptor of the other process, as a trace has one of its command.
var otherPidfd int

// renames renames a file of a directory and back, as a rotation does it.
func renames(sub string) error {
	name, other := os.Args[1]+"/"+sub+"/file", os.Args[1]+"/"+sub+"/other"
	if err := unix.Renameat(unix.AT_FDCWD, name, unix.AT_FDCWD, other); err != nil {
		return err
	}
	return unix.Renameat(unix.AT_FDCWD, other, unix.AT_FDCWD, name)
}

// removes removes a file of a directory, as a rotation does it.
func removes(sub string) error {
	return unix.Unlinkat(unix.AT_FDCWD, os.Args[1]+"/"+sub+"/old", 0)
}

// connectTo connects to a port of this host, where nobody listens.
func connectTo(port int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
}

func call(number uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	if _, _, errno := unix.Syscall6(number, a[0], a[1], a[2], a[3], a[4], a[5]); errno != 0 {
		return errno
	}
	return nil
}

// ignore passes on a refusal, and no error of the call itself.
func ignore(err error) error {
	if isRefusal(err) {
		return err
	}
	return nil
}

func isRefusal(err error) bool {
	return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOSYS)
}

func otherProcess() (pid int) {
	_, _ = fmt.Sscan(os.Args[2], &pid)
	return pid
}

func opens(path string, flags int) error { return closed(unix.Open(path, flags|unix.O_CLOEXEC, 0o600)) }

func openat2ForWriting() error {
	return closed(unix.Openat2(unix.AT_FDCWD, os.Args[1]+"/elsewhere/file", &unix.OpenHow{Flags: unix.O_WRONLY}))
}

// fork makes a process as vfork(2) does: the parent waits until it has ended.
func fork() error {
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	if pid == 0 {
		_, _, _ = unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
	return nil
}

// enterNamespace enters the namespace that this process is in.
func enterNamespace(kind string, flag int) func() error {
	return func() error {
		result := make(chan error)
		go func() { // on a thread that does not end: it stays where it was
			fd, err := unix.Open("/proc/self/ns/"+kind, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err == nil {
				err = unix.Setns(fd, flag)
			}
			result <- err
		}()
		return <-result
	}
}

func startThreads() error {
	const count = 8
	ended := make(chan error, count)
	for range count {
		go func() {
			var fds [2]int
			err := unix.Pipe2(fds[:], unix.O_CLOEXEC)
			if err == nil {
				time.AfterFunc(50*time.Millisecond, func() { _ = unix.Close(fds[1]) })
				_, err = unix.Read(fds[0], make([]byte, 1)) // occupies a thread
			}
			ended <- err
		}()
	}
	var all error
	for range count {
		all = errors.Join(all, <-ended)
	}
	return all
}

// tryRestricted prints what is not in force, then what is permitted, one name a line, and then
// the state of each thread.
func tryRestricted(name string) {
	f := restrictedFeatures(name, os.Args[1]+"/out")
	var err error
	if otherPidfd, err = unix.PidfdOpen(otherProcess(), 0); err != nil {
		fmt.Println("error:", err)
	}
	if err := DropPrivileges(f); err != nil {
		fmt.Println("error:", err)
	}
	threads, _ := filepath.Glob("/proc/self/task/*/status")
	status := make([]*os.File, 0, len(threads))
	for _, path := range threads {
		if file, err := os.Open(path); err == nil { // the sandbox refuses that later
			status = append(status, file)
		}
	}
	for _, part := range Restrict(f) {
		if part.Err != nil && !part.Expected {
			fmt.Println("error:", part.Name, part.Err)
		}
	}
	for _, each := range tries {
		if err := each.try(); !isRefusal(err) {
			fmt.Println("permitted:", each.name)
		}
	}
	for _, file := range status {
		text := make([]byte, 8<<10)
		n, err := file.ReadAt(text, 0)
		if n == 0 {
			fmt.Println("thread:", err)
			continue
		}
		_, rest, _ := strings.Cut(string(text[:n]), "\nSeccomp:\t")
		mode, _, _ := strings.Cut(rest, "\n")
		fmt.Println("thread:", mode)
	}
}

// Under the sandbox exactly what a trace with these features does is permitted, in all threads.
func TestRestrict_WhatIsPermitted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: what is refused to others is no sandbox")
	}
	for _, part := range Available() {
		if part.Err != nil {
			t.Skipf("this kernel lacks %s: %v", part.Name, part.Err)
		}
	}
	for _, name := range strings.Split(everywhere, "; ") {
		t.Run(name, func(t *testing.T) {
			permitted, threads := runRestricted(t, name)
			for _, each := range tries {
				want := slices.Contains(strings.Split(each.permitted, "; "), name)
				if got := slices.Contains(permitted, each.name); got != want {
					t.Errorf("permitted to %s: %v, want %v", each.name, got, want)
				}
			}
			if len(threads) < 2 || slices.ContainsFunc(threads, func(mode string) bool { return mode != "2" }) {
				t.Errorf("the modes of seccomp of the threads are %v, want 2 each", threads)
			}
		})
	}
}

func runRestricted(t *testing.T, name string) (permitted, threads []string) {
	t.Helper()
	dir := t.TempDir()
	for _, sub := range []string{"out", "elsewhere"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"file", "old"} {
			if err := os.WriteFile(filepath.Join(dir, sub, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	other := exec.Command("sleep", "1000")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = other.Process.Kill(), other.Wait() })
	child := exec.Command("/proc/self/exe", dir, fmt.Sprint(other.Process.Pid))
	child.Env = append(os.Environ(), restrictedEnv+"="+name)
	out, err := child.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		switch what, rest, _ := strings.Cut(strings.TrimSpace(line), ": "); what {
		case "permitted":
			permitted = append(permitted, rest)
		case "thread":
			threads = append(threads, rest)
		default:
			t.Errorf("it printed %q", line)
		}
	}
	return permitted, threads
}
