package netns

import (
	"bufio"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// candidates yields the inode of each network namespace, with a path that leads to it:
// first the namespaces of processes, then of threads, open files and mounts. It yields a
// namespace once per reference.
func candidates(yield func(inode uint32, path string) bool) {
	processes := numericNames("/proc")
	for _, search := range []func(process string, yield func(uint32, string) bool) bool{ofProcess, ofThreads, ofFiles} {
		for _, pid := range processes {
			if !search("/proc/"+pid, yield) {
				return
			}
		}
	}
	mounted(yield)
}

func ofProcess(process string, yield func(uint32, string) bool) bool {
	path := process + "/ns/net"
	inode, found := linkedInode(unix.AT_FDCWD, path)
	return !found || yield(inode, path)
}

// ofThreads skips the first thread, whose namespace is that of the process.
func ofThreads(process string, yield func(uint32, string) bool) bool {
	threads := numericNames(process + "/task")
	if len(threads) < 2 {
		return true
	}
	for _, tid := range threads[1:] {
		if !ofProcess(process+"/task/"+tid, yield) {
			return false
		}
	}
	return true
}

// ofFiles reads the links of a process's open files in portions, as there may be a
// million.
func ofFiles(process string, yield func(uint32, string) bool) bool {
	dir, err := os.Open(process + "/fd")
	if err != nil {
		return true
	}
	defer dir.Close()
	for {
		const portion = 1000
		names, err := dir.Readdirnames(portion)
		for _, name := range names {
			if inode, found := linkedInode(int(dir.Fd()), name); found && !yield(inode, process+"/fd/"+name) {
				return false
			}
		}
		if err != nil {
			return true
		}
	}
}

// numericNames returns the entries of a directory in /proc that are processes or threads.
func numericNames(path string) (names []string) {
	dir, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer dir.Close()
	all, _ := dir.Readdirnames(-1) // after an error it returns the names read before
	for _, name := range all {
		if name[0] >= '0' && name[0] <= '9' {
			names = append(names, name)
		}
	}
	return names
}

// linkedInode reads the inode of the network namespace that a link leads to, and reports
// whether it leads to one. Most links lead to other files: a name that fills the buffer is
// too long for a namespace.
func linkedInode(dir int, name string) (uint32, bool) {
	var target [len("net:[4294967295]") + 1]byte
	n, err := unix.Readlinkat(dir, name, target[:])
	if err != nil || n == len(target) {
		return 0, false
	}
	return inodeOf(target[:n])
}

// inodeOf parses the kernel's name of a network namespace, such as net:[4026531840].
func inodeOf[S string | []byte](name S) (uint32, bool) {
	const before = "net:["
	if len(name) < len(before) || string(name[:len(before)]) != before {
		return 0, false
	}
	inode, err := strconv.ParseUint(strings.TrimSuffix(string(name[len(before):]), "]"), 10, 32)
	return uint32(inode), err == nil
}

// mounted yields namespaces that are mounted, as 'ip netns add' does.
func mounted(yield func(inode uint32, path string) bool) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// The fourth field is the root of the mount, the fifth its mount point (proc_pid_mountinfo(5)).
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		if inode, ok := inodeOf(fields[3]); ok && !yield(inode, unescape.Replace(fields[4])) {
			return
		}
	}
}

// unescape reverses the kernel's escaping of paths in mountinfo (show_path in fs/proc_namespace.c).
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`, `\043`, "#")
