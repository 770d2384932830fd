package probe

import (
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/bpfobj"
	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// iteratorFile reads as an iterator over many objects does: some reads fail with EAGAIN.
type iteratorFile struct {
	parts []string // "": EAGAIN
	err   error    // at the end
}

func (f *iteratorFile) Read(p []byte) (int, error) {
	if len(f.parts) == 0 {
		return 0, f.err
	}
	part := f.parts[0]
	f.parts = f.parts[1:]
	if part == "" {
		return 0, &os.PathError{Op: "read", Path: "bpf_iter", Err: unix.EAGAIN}
	}
	return copy(p, part), nil
}

// An iterator that stops early, after a million objects without output, is read on to its end.
// Other errors end it.
func TestScan_IteratorStopsEarly(t *testing.T) {
	f := &iteratorFile{parts: []string{"", "", "one", "", "two", ""}, err: io.EOF}
	if text, err := io.ReadAll(steadyReader{f}); err != nil || string(text) != "onetwo" {
		t.Errorf("it reads %q, %v", text, err)
	}
	f = &iteratorFile{parts: []string{"", ""}, err: unix.ENOMEM}
	if _, err := io.ReadAll(steadyReader{f}); !errors.Is(err, unix.ENOMEM) {
		t.Errorf("the error is %v, want %v", err, unix.ENOMEM)
	}
}

// A scan that fails costs the feature and not the trace: Features says why, and the probe
// works.
func TestScan_FailureCostsTheFeature(t *testing.T) {
	if os.Geteuid() != 0 {
		const why = "loading BPF programs needs root"
		if os.Getenv("CI") == "true" {
			t.Fatal(why + ", and CI=true wants every test to run")
		}
		t.Skip(why)
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		t.Fatal(err)
	}
	p, err := Open(Options{BufferSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if !p.Features().has(SocketScan) {
		t.Skip("this kernel cannot scan")
	}
	p.collection.Programs[bpfobj.ProbeProgScanFiles].Close() // so that no iterator can use it
	p.findOwners()
	for _, f := range p.Features() {
		if lost := f.Err != nil && strings.Contains(f.Err.Error(), "find owners of open sockets"); lost != (f.Name == SocketScan) {
			t.Errorf("%s: %v", f.Name, f.Err)
		}
	}
	if _, err := p.Counters(); err != nil {
		t.Errorf("read counters: %v", err)
	}
}

// A second scan forgets the MPTCP sockets of the first one: another process may have a file at the address of one.
func TestScan_ForgetsMPTCPSockets(t *testing.T) {
	tcplab.RequireRoot(t)
	n := tcplab.NewNetns(t)
	p, err := Open(Options{Filter: filter.Filter{Netns: []uint32{n.Inode()}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	if p.collection.Programs[bpfobj.ProbeProgScanFiles] == nil {
		t.Skip("this kernel has no scan")
	}
	files := func() []uint64 {
		t.Helper()
		if err := p.FindOwners(); err != nil {
			t.Fatal(err)
		}
		all, err := keys[uint64](p.collection.Maps[bpfobj.ProbeMapMptcpOwners])
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	before := files()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_MPTCP)
	if err != nil {
		t.Skipf("this kernel has no MPTCP: %v", err)
	}
	with := slices.DeleteFunc(files(), func(file uint64) bool { return slices.Contains(before, file) })
	if err := unix.Close(fd); err != nil {
		t.Fatal(err)
	}
	after := files()
	if len(with) == 0 || slices.ContainsFunc(with, func(file uint64) bool { return slices.Contains(after, file) }) {
		t.Errorf("the scan with the socket finds %#x, the scan without it %#x", with, after)
	}
}
