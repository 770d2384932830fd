package kernel_test

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// moment is wall-clock time in nanoseconds, as records have it.
type moment int64

func now() moment { return moment(time.Now().UnixNano()) }

// clockSlack is how far a record's time may be off the test's: both read the same
// clocks, but not at the same instant. Steps are further apart than that.
const clockSlack = moment(100 * time.Microsecond)

// history is a value that changes; the change takes from one moment to another.
type history[T comparable] []change[T]

type change[T comparable] struct {
	from, until moment
	value       T
}

func (h *history[T]) add(from, until moment, value T) {
	*h = append(*h, change[T]{from, until, value})
}

// may be the value at the moment: during a change both are.
func (h history[T]) may(value T, at moment) bool {
	for i, c := range h {
		over := i+1 < len(h) && h[i+1].until+clockSlack < at
		if c.value == value && c.from-clockSlack <= at && !over {
			return true
		}
	}
	return false
}

// sock is one TCP socket, and who held it when.
type sock struct {
	what          string // for messages
	conn          string // its cookie; "": nobody ever had it in hand
	inode         string // as /proc/PID/fd shows it
	role          string
	local, peer   netip.AddrPort
	byPorts       bool    // conn is not the one of the records, as with MPTCP
	listeners     []*sock // whose queue it was in; several where it migrated
	ended         moment  // when a listener stopped listening although somebody has it; 0: never
	holds         []hold
	operations    []operation // that make a transition under the lock
	uids          history[int]
	inFlight      bool // in a message that nobody has received, or in an io_uring
	beforeTracing bool
	deaf          bool
	registered    bool // in an io_uring, which a kernel thread may close
}

type operation struct {
	a    *actor
	from moment
}

// hold is a process having the socket in its table of descriptors.
type hold struct {
	a           *actor
	from, until moment // until 0: it still does
	leaving     moment // when the step began by whose end it did not have it
}

func (h hold) covers(at moment) bool {
	return h.from-clockSlack <= at && (h.until == 0 || at <= h.until+clockSlack)
}

// step is a system call of an actor: nobody else does anything meanwhile.
type step struct {
	a           *actor
	from, until moment
}

// world is a namespace with actors in it, the tracers that watch them, and the truth.
type world struct {
	t       *testing.T
	n       *tcplab.Netns
	watches []*watch
	tr      *tracer // of the watch that is being judged
	traced  moment
	actors  []*actor
	socks   []*sock
	steps   []step
	mayLack []func(l line, s *sock) bool // known limits, each with its reason at the case
	score   score

	cgroupDirs []string

	gathering *gathering // of a case that waits for others
	arrive    func()
}

// newWorld makes a namespace; the tracer comes with trace.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, n: tcplab.NewNetns(t), traced: -1}
	// Orphans come to the test, which can then reap them.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatalf("prctl PR_SET_CHILD_SUBREAPER: %v", err)
	}
	t.Cleanup(w.bury)
	return w
}

// play is a case with the tracer there from the beginning.
func play(t *testing.T, story func(w *world)) *world {
	t.Helper()
	w := newWorld(t)
	w.watch()
	story(w)
	w.finish()
	return w
}

// watch is enough where there is no socket yet.
func (w *world) watch() {
	w.t.Helper()
	if len(w.socks) > 0 {
		w.t.Fatal("the test is wrong: a shared tracer is older than any socket")
	}
	for _, tr := range sharedTracers(w.t) {
		w.watches = append(w.watches, &watch{tr, true, tr.size()})
	}
	w.traced = now()
}

// watchBy is for a tracer that has just been started, for this case and others. One
// is enough: what the accept hook finds is the same then as with those of watch.
func (w *world) watchBy(tr *tracer) {
	w.t.Helper()
	w.watches = append(w.watches, &watch{tr: tr, shared: true})
	w.traced = now()
	for _, s := range w.socks {
		s.beforeTracing = true
	}
}

// bury ends what is left.
func (w *world) bury() {
	defer func() {
		for _, dir := range w.cgroupDirs {
			if err := os.Remove(dir); err != nil {
				w.t.Error(err)
			}
		}
	}()
	var living []*actor
	for _, a := range w.actors {
		if a.died == 0 {
			_ = unix.Kill(a.pid, unix.SIGKILL)
			living = append(living, a)
		}
		for _, th := range a.threads {
			unix.Close(th.orders)
			unix.Close(th.answers)
		}
	}
	for _, a := range living { // parents first: then their children are the test's
		if a.parent == nil {
			a.reap()
		} else {
			_, _ = unix.Wait4(a.pid, nil, 0, nil)
		}
	}
}

func (w *world) must(a *actor, call uintptr, err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatalf("%s (%d): system call %d: %v", a.name(), a.pid, call, err)
	}
}

// stepped notes a finished step, and what has changed by it. The next one is far
// enough away to be told from it by the time.
func (w *world) stepped(a *actor, from, until moment) {
	w.t.Helper()
	w.steps = append(w.steps, step{a, from, until})
	w.reconcile(from, until)
	w.verify(a)
	for now() < until+3*clockSlack {
		time.Sleep(time.Duration(clockSlack))
	}
}

// reconcile brings the holds up to what the tables say.
func (w *world) reconcile(from, until moment) {
	for _, s := range w.socks {
		for _, a := range w.actors {
			has := a.table.has(s)
			at := slices.IndexFunc(s.holds, func(h hold) bool { return h.a == a && h.until == 0 })
			switch {
			case has && at < 0:
				s.holds = append(s.holds, hold{a: a, from: from})
			case !has && at >= 0:
				s.holds[at].leaving, s.holds[at].until = from, until
			}
		}
	}
}

// verify holds the tables against the kernel's: after a step, of who made it.
func (w *world) verify(actors ...*actor) {
	w.t.Helper()
	for _, a := range actors {
		if a.died != 0 {
			continue
		}
		open := w.openInodes(a)
		for _, s := range w.socks {
			if has := a.table.has(s) && a.fd(s) < inRing; s.inode != "" && has != open[s.inode] {
				w.t.Fatalf("the test is wrong: %s (%d) has %s open: %v, want %v", a.name(), a.pid, s.what,
					open[s.inode], has)
			}
		}
	}
}

func (w *world) openInodes(a *actor) map[string]bool {
	// The leader's own directory is empty once it has exited.
	dir := fmt.Sprintf("/proc/%d/task/%d/fd", a.pid, a.tid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		w.t.Fatalf("read the descriptors of %s: %v", a.name(), err)
	}
	open := map[string]bool{}
	for _, e := range entries {
		if fd, _ := strconv.Atoi(e.Name()); fd <= a.noSocketsTo {
			continue
		}
		if target, err := os.Readlink(dir + "/" + e.Name()); err == nil {
			open[target] = true
		}
	}
	return open
}

// noteOperation is called before anything that makes a transition under the lock.
func (s *sock) noteOperation(a *actor, from moment) {
	s.operations = append(s.operations, operation{a, from})
}

// noteRelease: who closes a socket last makes a transition of it.
func (w *world) noteRelease(a *actor, s *sock, from moment) {
	for _, other := range w.actors {
		if other.table.has(s) {
			return
		}
	}
	if !s.inFlight && !s.registered {
		s.noteOperation(a, from)
	}
}

// cgroupOf is the path that the tracer takes for a process's: of cgroup v2 where
// that is mounted for all, else of the first v1 controller that it looks for.
func cgroupOf(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	controllers, _ := cgroupHierarchy()
	for _, l := range strings.Split(string(b), "\n") {
		if fields := strings.SplitN(l, ":", 3); len(fields) == 3 && fields[1] == controllers {
			return fields[2]
		}
	}
	return ""
}

// cgroupHierarchy is the controller ("" for v2) and where it is mounted.
func cgroupHierarchy() (controller, root string) {
	var fs unix.Statfs_t
	for _, c := range []string{"memory", "pids", "cpu"} {
		root := "/sys/fs/cgroup/" + c
		if unix.Statfs(root, &fs) == nil && fs.Type == unix.CGROUP_SUPER_MAGIC {
			return c, root
		}
	}
	return "", "/sys/fs/cgroup"
}

func conn(cookie uint64) string { return strconv.FormatUint(cookie, 16) }
