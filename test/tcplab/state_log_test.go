package tcplab

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// stateLog is the kernel's own log of sock:inet_sock_set_state for the fresh ports: an
// instance of tracefs, without BPF. (perf counts right, but on some machines its
// samples lack the events of one CPU's idle task.)
//
// One stateLog serves a whole test. Enabling the event patches the scheduler's code, to
// record command names, and an emulated machine does not always survive that.
type stateLog struct {
	dir string
}

// event is one transition of a TCP socket, of any namespace.
type event struct {
	sport, dport uint16
	from, to     State
}

// String formats the event for a failure message.
func (e event) String() string {
	return fmt.Sprintf("\n%d>%d %v %v", e.sport, e.dport, e.from, e.to)
}

func newStateLog(t testing.TB) *stateLog {
	t.Helper()
	RequireRoot(t)
	w := &stateLog{dir: fmt.Sprintf("%s/instances/tcpshift-test-%d", openTracefs(t), os.Getpid())}
	check(t, os.Mkdir(w.dir, 0o700))
	t.Cleanup(func() { check(t, os.Remove(w.dir)) })
	w.write(t, "buffer_size_kb", "8192") // for each CPU
	w.write(t, "trace_clock", "mono")    // comparable between CPUs
	const event = "events/sock/inet_sock_set_state/"
	w.write(t, event+"filter", fmt.Sprintf(
		"(sport >= %[1]d && sport < %[2]d) || (dport >= %[1]d && dport < %[2]d)",
		FirstFreshPort, FirstFreshPort+freshPorts))
	w.write(t, event+"enable", "1")
	return w
}

// openTracefs opens tracefs without mounting it: the file system belongs to the
// descriptor.
func openTracefs(t testing.TB) string {
	t.Helper()
	fs, err := unix.Fsopen("tracefs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		SkipUnlessCI(t, fmt.Sprintf("needs tracefs: fsopen: %v", err))
	}
	defer unix.Close(fs)
	check(t, unix.FsconfigCreate(fs))
	mount, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	check(t, err)
	t.Cleanup(func() { unix.Close(mount) })
	return fmt.Sprintf("/proc/self/fd/%d", mount)
}

func (w *stateLog) write(t testing.TB, file, value string) {
	t.Helper()
	check(t, os.WriteFile(w.dir+"/"+file, []byte(value), 0))
}

var eventLine = regexp.MustCompile(`inet_sock_set_state: .*protocol=IPPROTO_TCP sport=(\d+) dport=(\d+) .*oldstate=TCP_(\w+) newstate=TCP_(\w+)`)

// events returns, in the order of time, the events so far of the sockets that keep
// accepts by their ports.
func (w *stateLog) events(t testing.TB, keep func(sport, dport uint16) bool) []event {
	t.Helper()
	text, err := os.ReadFile(w.dir + "/trace")
	check(t, err)
	var events []event
	for line := range strings.Lines(string(text)) {
		m := eventLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		e := event{sport: port(t, m[1]), dport: port(t, m[2]), from: state(t, m[3]), to: state(t, m[4])}
		if keep(e.sport, e.dport) {
			events = append(events, e)
		}
	}
	return events
}

func port(t testing.TB, text string) uint16 {
	t.Helper()
	value, err := strconv.ParseUint(text, 10, 16)
	check(t, err)
	return uint16(value)
}

func state(t testing.TB, name string) State {
	t.Helper()
	for s, known := range stateNames {
		if known == name {
			return s
		}
	}
	t.Fatalf("tracefs: unknown state %q", name)
	return 0
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
