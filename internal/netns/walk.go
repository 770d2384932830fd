package netns

import (
	"bytes"
	"cmp"
	"iter"
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
	processes, ok := w.oldestFirst(once)
	if ok && w.ofProcesses(processes, once) && w.mounted(once) {
		w.ofTasks(processes, once)
	}
}

// cheap yields the namespaces of processes, and those that are mounted: one system call for
// each process.
func (w *walk) cheap(yield func(reference) bool) {
	for processes := range w.numericNames("/proc") {
		if !w.ofProcesses(processes, yield) {
			return
		}
	}
	w.mounted(yield)
}

// costly yields the namespaces of threads and open files: one system call for each, and some
// for each process.
func (w *walk) costly(yield func(reference) bool) {
	if processes, ok := w.oldestFirst(yield); ok {
		w.ofTasks(processes, yield)
	}
}

func (w *walk) ofProcesses(processes []string, yield func(reference) bool) bool {
	for _, pid := range processes {
		if !ofProcess("/proc/"+pid, yield) {
			return false
		}
	}
	return yield(pause)
}

// ofTasks goes through the threads of all processes, and then through their files.
func (w *walk) ofTasks(processes []string, yield func(reference) bool) {
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
	first := 1
	for threads := range w.numericNames(process + "/task") {
		for _, tid := range threads[min(first, len(threads)):] {
			if !ofProcess(process+"/task/"+tid, yield) {
				return false
			}
		}
		if first = 0; len(threads) == portion && !yield(pause) {
			return false
		}
	}
	return true
}

// portion is how many entries of a directory a walk reads at a time. A process may have a
// million files open.
const portion = 250

// ofFiles reads the links of a process's open files.
func (w *walk) ofFiles(process string, yield func(reference) bool) bool {
	dir, err := safeopen.ProcDir(process + "/fd")
	if err != nil {
		w.note(err)
		return true
	}
	defer dir.Close()
	for {
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

// oldestFirst returns the ids of all processes, sorted by the time of their start. An old
// process is more likely to be there a moment later, with its files open. Meanwhile
// it yields only pause. ok is false if the walk is to end.
func (w *walk) oldestFirst(yield func(reference) bool) (processes []string, ok bool) {
	started := make(map[string]uint64)
	for some := range w.numericNames("/proc") {
		for _, pid := range some {
			text, err := safeopen.ReadFile("/proc/" + pid + "/stat")
			w.note(err)
			started[pid] = startTime(text)
		}
		if processes = append(processes, some...); !yield(pause) {
			return nil, false
		}
	}
	slices.SortStableFunc(processes, func(a, b string) int { return cmp.Compare(started[a], started[b]) })
	return processes, true
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

// numericNames yields the entries of a directory in /proc that are processes or threads, up to a
// portion at a time, in the kernel's order: processes by number, threads by their creation, the
// first one first.
func (w *walk) numericNames(path string) iter.Seq[[]string] {
	return func(yield func([]string) bool) {
		dir, err := safeopen.ProcDir(path)
		if err != nil {
			w.note(err)
			return
		}
		defer dir.Close()
		for err == nil {
			var names []string
			names, err = dir.Readdirnames(portion)
			isOther := func(name string) bool { return name[0] < '0' || name[0] > '9' }
			if names = slices.DeleteFunc(names, isOther); len(names) > 0 && !yield(names) {
				return
			}
		}
	}
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
