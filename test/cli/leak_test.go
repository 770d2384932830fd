package cli_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// object is a BPF object. The kernel does not reuse its id soon.
type object struct {
	kind string // the key of the id in /proc/PID/fdinfo
	id   uint32
}

var byID = map[string]int{
	"prog_id": unix.BPF_PROG_GET_FD_BY_ID,
	"map_id":  unix.BPF_MAP_GET_FD_BY_ID,
	"link_id": unix.BPF_LINK_GET_FD_BY_ID,
	"btf_id":  unix.BPF_BTF_GET_FD_BY_ID,
}

// When a tracer has ended, the kernel has freed all of its BPF objects.
func TestLeak_KernelObjects(t *testing.T) {
	requireRoot(t)
	for name, end := range map[string]func(*tracer){
		"asked to stop": func(tr *tracer) { tr.stop() },
		"killed": func(tr *tracer) {
			tr.signal(syscall.SIGKILL)
			tr.waitUnread()
		},
		"left by its reader": func(tr *tracer) {
			tr.out.Close()
			tr.waitUnread().mustEnd(tr.t, 0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			tr := startTracer(t, quiet)
			opened := openObjects(t, tr)
			end(tr)
			mustBeGone(t, opened)
		})
	}
}

// A running tracer opens no further descriptors.
func TestLeak_Descriptors(t *testing.T) {
	requireRoot(t)
	tr := startTracer(t, []string{"--only", "stats", "--stats-interval", "1ms"})
	before := descriptors(t, tr)
	for range 20 {
		tr.next()
	}
	if after := descriptors(t, tr); len(after) != len(before) {
		t.Errorf("%d descriptors after the start, %d later:\n%s\n%s", len(before), len(after),
			strings.Join(before, " "), strings.Join(after, " "))
	}
	tr.stop()
}

func descriptors(t *testing.T, tr *tracer) []string {
	t.Helper()
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", tr.cmd.Process.Pid))
	if err != nil || len(paths) == 0 {
		t.Fatalf("find the descriptors of %d: %v", tr.cmd.Process.Pid, err)
	}
	return paths
}

// openObjects returns the BPF objects that a running tracer has open: two attached
// programs, perhaps a third on accept(), their maps and types, and programs that ran at
// the start.
func openObjects(t *testing.T, tr *tracer) map[object]bool {
	t.Helper()
	opened, kinds := readObjects(t, tr)
	want := wantLinks(t, tr)
	if kinds["link_id"] != want || kinds["prog_id"] < want || kinds["map_id"] == 0 || kinds["btf_id"] == 0 {
		t.Fatalf("a running tracer has open %v, want %d links, their programs, maps and their types", kinds, want)
	}
	return opened
}

// readObjects returns the BPF objects that a tracer has open now, and how many of each kind.
func readObjects(t *testing.T, tr *tracer) (opened map[object]bool, kinds map[string]int) {
	t.Helper()
	opened, kinds = make(map[object]bool), make(map[string]int)
	for _, path := range descriptors(t, tr) {
		f, err := os.Open(path)
		if err != nil {
			continue // closed just now
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			var o object
			if _, err := fmt.Sscanf(lines.Text(), "%s %d", &o.kind, &o.id); err != nil {
				continue
			}
			o.kind = strings.TrimSuffix(o.kind, ":")
			if byID[o.kind] != 0 && !opened[o] {
				opened[o] = true
				kinds[o.kind]++
			}
		}
		f.Close()
	}
	return opened, kinds
}

// wantLinks returns how many programs the tracer has to attach with the features of its
// start record: a chain for each tracepoint of transitions and resets, and one program
// that sees accept() or else reads.
func wantLinks(t *testing.T, tr *tracer) int {
	t.Helper()
	var start struct {
		Kernel   string         `json:"kernel"`
		Features map[string]any `json:"features"`
	}
	if err := json.Unmarshal([]byte(tr.started), &start); err != nil {
		t.Fatalf("decode %s: %v", tr.started, err)
	}
	var major int
	if _, err := fmt.Sscanf(start.Kernel, "%d.", &major); err != nil {
		t.Fatalf("the version of kernel %q: %v", start.Kernel, err)
	}
	chain := 2
	if major >= 7 { // a task may preempt a program
		chain = 3
	}
	links := chain
	if only := slices.Index(tr.cmd.Args, "--only"); only < 0 || strings.Contains(tr.cmd.Args[only+1], "alert") {
		links++ // the iterator that lists bound ports, for alerts
	}
	for name, each := range map[string]int{"reset_sent": chain, "reset_received": chain, "accept_hook": 1, "read_hook": 1} {
		if start.Features[name] == true {
			links += each
		}
	}
	return links
}

// mustBeGone waits until the kernel has freed the objects, which happens shortly after
// the last descriptor is closed.
func mustBeGone(t *testing.T, opened map[object]bool) {
	t.Helper()
	began := time.Now()
	for o := range opened {
		for o.exists(t) {
			if time.Since(began) > waitLimit {
				t.Fatalf("%s %d still exists %v after the end of the tracer", o.kind, o.id, waitLimit)
			}
			time.Sleep(time.Millisecond) // there is nothing to block on
		}
	}
}

func (o object) exists(t *testing.T) bool {
	t.Helper()
	attr := [3]uint32{o.id} // the beginning of union bpf_attr: id, next id, flags
	fd, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(byID[o.kind]), uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	switch errno {
	case 0:
		unix.Close(int(fd))
		return true
	case unix.ENOENT:
		return false
	}
	t.Fatalf("look for %s %d: %v", o.kind, o.id, errno)
	return false
}
