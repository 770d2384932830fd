package kernel_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// Most cases need a tracer that was there before them and nothing else of it. They
// have one in common, which traces every namespace, and, where the kernel gives the
// accept hook, a second one without, as on a locked-down host: what happens once is
// told twice, and held against the truth twice.
var shared []*tracer

// variants are the features that the tracers of a case do without.
func variants() [][]string {
	for _, f := range kernel.Features() {
		if f.Name == probe.AcceptHook && f.Err == nil && !slices.Contains(switchedOff(), probe.AcceptHook) {
			return [][]string{nil, {probe.AcceptHook}}
		}
	}
	return [][]string{nil}
}

func sharedTracers(t testing.TB) []*tracer {
	t.Helper()
	tcplab.RequireRoot(t)
	if len(shared) > 0 {
		return shared
	}
	for _, without := range variants() {
		tr, err := launch(options{Options: probe.Options{Ends: true, Without: without}})
		if err != nil {
			t.Fatal(err)
		}
		shared = append(shared, tr)
	}
	return shared
}

// retireShared ends them: before a storm, which they would only slow down, and at
// the end of all tests. Storms are in files called storm_*, which come last.
func retireShared() error {
	retired := shared
	shared = nil
	return retire(retired...)
}

func retire(tracers ...*tracer) error {
	var errs []error
	for _, tr := range tracers {
		tr.cancel()
		errs = append(errs, <-tr.done, tr.checkFrame(), tr.probe.Close(), tr.out.Close())
	}
	return errors.Join(errs...)
}

func TestMain(m *testing.M) {
	status := m.Run()
	if err := errors.Join(retireShared(), retireStormTracer()); err != nil {
		fmt.Fprintln(os.Stderr, "the tracers that tests shared:", err)
		status = max(status, 1)
	}
	os.Exit(status)
}

// A watch is one tracer over a case.
type watch struct {
	tr     *tracer
	shared bool
	from   int // where in the output of a shared one the case begins
}

// lines are all that the tracer says of the namespace; its own tracer has ended then.
func (v *watch) lines(n *tcplab.Netns) ([]line, error) {
	if !v.shared {
		return v.tr.end()
	}
	if err := v.tr.awaitFence(n, v.from); err != nil {
		return nil, err
	}
	lines, err := parseLines(linesOf(v.tr.since(v.from), n.Inode()))
	return slices.DeleteFunc(lines, func(l line) bool { return l.PeerPort == fencePort }), err
}

// linesOf are the namespaces'. To parse them all would take longer than the case.
func linesOf(text []byte, inodes ...uint32) []byte {
	var mine []byte
	for l := range bytes.Lines(text) {
		_, value, _ := bytes.Cut(l, []byte(`"netns":`))
		digits, _, _ := bytes.Cut(value, []byte(","))
		if inode, err := strconv.ParseUint(string(digits), 10, 32); err == nil && slices.Contains(inodes, uint32(inode)) {
			mine = append(mine, l...)
		}
	}
	return mine
}

const fencePort = 9

// fence makes a transition after which nothing comes that happened before: the ring
// keeps the order. Nobody listens on that port.
func fence(n *tcplab.Netns) error {
	var err error
	n.Do(func() {
		var fd int
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return
		}
		defer unix.Close(fd)
		to := unix.SockaddrInet4{Port: fencePort, Addr: netip.AddrFrom4([4]byte{127, 0, 0, 1}).As4()}
		if err = unix.Connect(fd, &to); errors.Is(err, unix.ECONNREFUSED) {
			err = nil
		}
	})
	return err
}

func hasFence(n *tcplab.Netns, text []byte) bool {
	port := fmt.Appendf(nil, `"peer_port":%d,`, fencePort)
	for l := range bytes.Lines(linesOf(text, n.Inode())) {
		if bytes.Contains(l, port) && bytes.Contains(l, []byte(`"new_state":"CLOSE"`)) {
			return true
		}
	}
	return false
}
