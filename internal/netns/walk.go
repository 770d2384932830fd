package netns

import (
	"bytes"
	"cmp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/safeopen"
)

// walk goes through the references to namespaces in /proc and in the mount table. What it
// yields may be gone at once, so [safeopen.Netns] checks it again when it is used.
type walk struct {
	err error // the first time that this process could open no further file
}

// reference is a path that leads to a namespace. A reference with inode 0 leads nowhere: it
// is a moment at which a walk may pause.
type reference struct {
	inode uint32
	path  string
}

// pause is the reference that leads nowhere.
var pause reference

// find returns the namespaces with these inodes that can be found, or all if inodes is empty.
func (w *walk) find(inodes []uint32) (all []Namespace) {
	for n := range w.namespaces {
		if len(inodes) > 0 && !slices.Contains(inodes, n.Inode) {
			continue
		}
		n.Required = len(inodes) > 0
		all = append(all, n)
		if len(all) == len(inodes) { // all found; the rest of the walk is slow
			break
		}
	}
	return all
}

// namespaces yields each namespace once.
func (w *walk) namespaces(yield func(Namespace) bool) {
	seen := make(map[uint32]bool)
	once := func(r reference) bool {
		if r == pause || seen[r.inode] {
			return true
		}
		seen[r.inode] = true
		return yield(Namespace{Inode: r.inode, Path: r.path})
	}
	processes := w.processes()
	w.oldestFirst(processes)
	if w.cheap(processes, once) {
		w.costly(processes, once)
	}
}

// cheap yields the namespaces of processes, and those that are mounted: one system call for
// each process.
func (w *walk) cheap(processes []string, yield func(reference) bool) bool {
	for i, pid := range processes {
		const portion = 100
		if i%portion == portion-1 && !yield(pause) {
			return false
		}
		if !ofProcess("/proc/"+pid, yield) {
			return false
		}
	}
	return w.mounted(yield)
}

// costly yields the namespaces of threads and open files: one system call for each, and some
// for each process.
func (w *walk) costly(processes []string, yield func(reference) bool) {
	for _, search := range []func(string, func(reference) bool) bool{w.ofThreads, w.ofFiles} {
		for _, pid := range processes {
			if !search("/proc/"+pid, yield) || !yield(pause) {
				return
			}
		}
	}
}

func ofProcess(process string, yield func(reference) bool) bool {
	path := process + "/ns/net"
	inode, found := linkedInode(unix.AT_FDCWD, path)
	return !found || yield(reference{inode, path})
}

// ofThreads skips the first thread, whose namespace is that of the process.
func (w *walk) ofThreads(process string, yield func(reference) bool) bool {
	threads := w.numericNames(process + "/task")
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
func (w *walk) ofFiles(process string, yield func(reference) bool) bool {
	dir, err := safeopen.ProcDir(process + "/fd")
	if err != nil {
		w.note(err)
		return true
	}
	defer dir.Close()
	for {
		const portion = 1000
		names, err := dir.Readdirnames(portion)
		for _, name := range names {
			inode, found := linkedInode(int(dir.Fd()), name)
			if found && !yield(reference{inode, process + "/fd/" + name}) {
				return false
			}
		}
		if err != nil {
			return true
		}
		if !yield(pause) {
			return false
		}
	}
}

// note remembers that this process could open no further file. Other errors mean that the
// process is gone, or that this user may not inspect it.
func (w *walk) note(err error) {
	if w.err == nil && isTemporary(err) {
		w.err = err
	}
}

// processes returns the ids of all processes, in the kernel's order: by number.
func (w *walk) processes() []string { return w.numericNames("/proc") }

// oldestFirst sorts processes by the time of their start. An old process is more likely to be
// there a moment later, with its files open.
func (w *walk) oldestFirst(processes []string) {
	started := make(map[string]uint64, len(processes))
	for _, pid := range processes {
		text, err := safeopen.ReadFile("/proc/" + pid + "/stat")
		w.note(err)
		started[pid] = startTime(text)
	}
	slices.SortStableFunc(processes, func(a, b string) int { return cmp.Compare(started[a], started[b]) })
}

// startTime returns the time of start from the text of /proc/PID/stat, in ticks since the
// host's start. A text that cannot be parsed is that of a process that has ended: it comes
// last.
func startTime(stat []byte) uint64 {
	const field, after = 22, 2 // proc_pid_stat(5); the name, field 2, may have spaces in it
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < field-after {
		return 1<<64 - 1
	}
	ticks, err := strconv.ParseUint(string(fields[field-after-1]), 10, 64)
	if err != nil {
		return 1<<64 - 1
	}
	return ticks
}

// numericNames returns the entries of a directory in /proc that are processes or threads.
func (w *walk) numericNames(path string) (names []string) {
	dir, err := safeopen.ProcDir(path)
	if err != nil {
		w.note(err)
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
	return uint32(inode), err == nil && inode != 0
}

// mounted yields namespaces that are mounted, as 'ip netns add' does. Another file may be
// mounted over one, so that its path does not lead to it.
func (w *walk) mounted(yield func(reference) bool) bool {
	text, err := safeopen.ReadFile("/proc/self/mountinfo")
	if err != nil {
		w.note(err)
		return true
	}
	for line := range bytes.Lines(text) {
		if !bytes.Contains(line, []byte(" net:[")) {
			continue // a host may have thousands of mounts
		}
		// The fourth field is the root of the mount, the fifth its mount point (proc_pid_mountinfo(5)).
		fields := strings.Fields(string(line))
		if len(fields) < 5 {
			continue
		}
		inode, ok := inodeOf(fields[3])
		if path := unescape.Replace(fields[4]); ok && w.leadsTo(path, inode) && !yield(reference{inode, path}) {
			return false
		}
	}
	return true
}

func (w *walk) leadsTo(path string, inode uint32) bool {
	f, err := safeopen.Netns(path, inode)
	if err != nil {
		w.note(err)
		return false
	}
	return f.Close() == nil
}

// unescape reverses the kernel's escaping of paths in mountinfo (show_path in fs/proc_namespace.c).
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`, `\043`, "#")
