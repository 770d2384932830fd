package load_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// run is the measurements of one storm.
type run struct {
	rate     float64 // connections a second
	fired    uint64  // transitions
	captured uint64
	mayHide  uint64        // of fired: transitions of pairs that some kernels hide
	hideable uint64        // of captured: likewise
	kernel   time.Duration // in the tracer's programs, if measured
	own      time.Duration // CPU time of the tracer without its start
	anon     int64         // bytes, RssAnon
}

// measure makes one storm, with a tracer beside it or without. It measures the time in
// the kernel only if timed is set, because that measurement takes time itself.
func measure(t *testing.T, s subject, timed bool) (r run) {
	beside(t, s, timed, &r, func(n *tcplab.Netns, _ *tracer) {
		n.Sysctl("net.ipv4.tcp_max_tw_buckets", "1000000")
		began := time.Now()
		made := tcplab.Storm(n, tcplab.StormConfig{Connections: *connections})
		r.rate = float64(made) / time.Since(began).Seconds()
		r.fired = uint64(10*made + 2*2) // see tcplab.Storm
		r.mayHide = 2 * uint64(made)
	})
	return r
}

// beside runs load in a new network namespace, beside the tracer of s if s has a command;
// else load gets nil. It then ends the tracer and writes its measurements to r.
func beside(t *testing.T, s subject, timed bool, r *run, load func(*tcplab.Netns, *tracer)) {
	t.Run(s.name, func(t *testing.T) {
		n := tcplab.NewNetns(t)
		if timed {
			stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
			if err != nil {
				t.Fatalf("enable BPF statistics: %v", err)
			}
			defer stats.Close()
		}
		var tr *tracer
		if len(s.command) > 0 {
			tr = startTracer(t, s)
		}
		load(n, tr)
		if tr != nil {
			tr.end(r, n.Inode())
		}
	})
	// The kernel removes the rest of the namespace in the background.
	time.Sleep(*pause)
}

// warmMemory touches half of the free memory. A virtual machine gets a page from its
// host when it first touches the page, which takes 1 to 2 µs. Without this, the program
// that first writes to such pages pays for them.
func warmMemory(t *testing.T) {
	t.Helper()
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		t.Fatalf("sysinfo: %v", err)
	}
	half := int(info.Freeram * uint64(info.Unit) / 2)
	b, err := unix.Mmap(-1, 0, half, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		t.Fatalf("touch %d bytes: %v", half, err)
	}
	if err := unix.Munmap(b); err != nil {
		t.Fatal(err)
	}
}

// tracer is a running subject.
type tracer struct {
	t        *testing.T
	subject  subject
	cmd      *exec.Cmd
	output   *os.File
	stderr   bytes.Buffer
	programs []*ebpf.Program
	spent    time.Duration // CPU time before the storm
}

func startTracer(t *testing.T, s subject) *tracer {
	t.Helper()
	output, err := os.Create(filepath.Join(t.TempDir(), "output"))
	if err != nil {
		t.Fatal(err)
	}
	before := programIDs(t)
	tr := &tracer{t: t, subject: s, cmd: exec.Command(s.command[0], s.command[1:]...), output: output}
	tr.cmd.Stdout, tr.cmd.Stderr = output, &tr.stderr
	if err := tr.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", s.name, err)
	}
	t.Cleanup(func() {
		if tr.cmd.ProcessState == nil {
			_ = tr.cmd.Process.Kill()
			_ = tr.cmd.Wait()
		}
		for _, p := range tr.programs {
			p.Close()
		}
		output.Close()
	})
	tr.awaitReady(before)
	for id := range programIDs(t) {
		if p, err := ebpf.NewProgramFromID(id); err == nil && !before[id] {
			tr.programs = append(tr.programs, p)
		}
	}
	tr.spent = tr.cpu()
	return tr
}

// awaitReady waits for the tracer's ready text. A tracer without one is ready one
// second after its programs are loaded.
func (tr *tracer) awaitReady(before map[ebpf.ProgramID]bool) {
	tr.t.Helper()
	const limit = 30 * time.Second
	for began := time.Now(); time.Since(began) < limit; time.Sleep(5 * time.Millisecond) {
		if tr.subject.ready == "" {
			if len(programIDs(tr.t)) > len(before) {
				time.Sleep(time.Second)
				return
			}
			continue
		}
		if b, err := os.ReadFile(tr.output.Name()); err == nil && bytes.Contains(b, []byte(tr.subject.ready)) {
			return
		}
	}
	tr.t.Fatalf("%s was not ready within %v: %s", tr.subject.name, limit, tr.stderr.String())
}

// end waits until the tracer is idle, reads what it cost, and ends it.
func (tr *tracer) end(r *run, netns uint32) {
	tr.t.Helper()
	tr.awaitIdle()
	r.own = tr.cpu() - tr.spent
	r.anon = anonOf(tr.t, tr.cmd.Process.Pid)
	for _, p := range tr.programs {
		stats, err := p.Stats()
		if err != nil {
			tr.t.Fatalf("read a program's statistics: %v", err)
		}
		r.kernel += stats.Runtime
	}
	if err := tr.cmd.Process.Signal(syscall.SIGINT); err != nil {
		tr.t.Fatalf("interrupt %s: %v", tr.subject.name, err)
	}
	_ = tr.cmd.Wait() // some end by the signal, others with a status
	if tr.subject.captured != nil {
		r.captured, r.hideable = tr.subject.captured(tr.t, tr.output, netns)
	}
}

// awaitIdle waits until the tracer has handled all events: then it uses no CPU time.
func (tr *tracer) awaitIdle() {
	tr.t.Helper()
	const step, idle = 200 * time.Millisecond, 10 * time.Millisecond
	for last := tr.cpu(); ; {
		time.Sleep(step)
		now := tr.cpu()
		if now-last < idle {
			return
		}
		last = now
	}
}

// cpu returns the CPU time of all threads, in user space and in the kernel, with those
// that have ended: fields 14 and 15 of proc_pid_stat(5), in hundredths of a second.
func (tr *tracer) cpu() time.Duration {
	tr.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", tr.cmd.Process.Pid))
	if err != nil {
		tr.t.Fatalf("%s has ended: %s", tr.subject.name, tr.stderr.String())
	}
	_, behind, _ := strings.Cut(string(b), ") ") // the name may contain anything
	fields := strings.Fields(behind)
	total := time.Duration(0)
	for _, field := range fields[14-3 : 16-3] {
		hundredths, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			tr.t.Fatalf("read /proc/PID/stat: %v", err)
		}
		total += time.Duration(hundredths) * 10 * time.Millisecond
	}
	return total
}

// anonOf returns RssAnon of a process in bytes.
func anonOf(t *testing.T, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, found := strings.CutPrefix(line, "RssAnon:"); found {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatal("no RssAnon in /proc/PID/status")
	return 0
}

func programIDs(t *testing.T) map[ebpf.ProgramID]bool {
	t.Helper()
	ids := map[ebpf.ProgramID]bool{}
	for id := ebpf.ProgramID(0); ; {
		next, err := ebpf.ProgramGetNextID(id)
		if err != nil {
			return ids // there are no more
		}
		ids[next], id = true, next
	}
}
