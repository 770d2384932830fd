package probe

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/decode"
	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// A path that found its ring full is emitted at a later event, also at one of a socket whose
// owner was stored with that cgroup.
func TestCgroup_PathAfterFullRing(t *testing.T) {
	tcplab.RequireRoot(t)
	n := tcplab.NewNetns(t)
	peer := []filter.PortRange{{First: listenPort, Last: listenPort}} // the clients alone
	p, err := Open(Options{BufferSize: 64 << 10, Filter: filter.Filter{Netns: []uint32{n.Inode()}, PeerPorts: peer}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	n.Listen(tcplab.V4.At(listenPort))
	var client *tcplab.Socket
	const cgroups = 64 // more than the paths that a ring of 64 KiB has room for
	enter := cgroupsForTest(t, cgroups)
	for i := range cgroups {
		enter(i)
		client = n.Dial(tcplab.V4.At(listenPort))
	}
	paths := map[uint64]bool{}
	id := p.readCgroups(t, paths)
	if id == 0 || paths[id] {
		t.Fatalf("the last cgroup is %d, and %d paths are there: the ring was not full", id, len(paths))
	}
	client.Close()
	if again := p.readCgroups(t, paths); again != id || !paths[id] {
		t.Errorf("the event after the ring was read has cgroup %d, want %d with its path", again, id)
	}
}

// readCgroups adds the cgroups whose path has come to paths. It returns the last event's cgroup.
func (p *Probe) readCgroups(t *testing.T, paths map[uint64]bool) (last uint64) {
	t.Helper()
	err := p.ReadFor(0, func(sample []byte) error {
		var e decode.Event
		if err := decode.Sample(sample, &e); err != nil {
			return err
		}
		switch e.Kind {
		case decode.KindCgroup:
			paths[e.CgroupID] = true
		case decode.KindTransition:
			last = e.Transition.CgroupID
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return last
}

// cgroupsForTest makes cgroups. enter moves this process into one of them.
func cgroupsForTest(t *testing.T, count int) (enter func(i int)) {
	t.Helper()
	root, before := ownCgroup(t)
	dir := func(i int) string { return filepath.Join(root, fmt.Sprintf("tcpshift-%d-%d", os.Getpid(), i)) }
	move := func(dir string) {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		move(before)
		for i := range count {
			_ = os.Remove(dir(i))
		}
	})
	for i := range count {
		if err := os.Mkdir(dir(i), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return func(i int) { move(dir(i)) }
}

const cgroupMount = "/sys/fs/cgroup"

// ownCgroup returns the root of the hierarchy that the programs use, see cgroupV1Subsys(), and
// this process's directory in it.
func ownCgroup(t *testing.T) (root, own string) {
	t.Helper()
	lines, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	var fs unix.Statfs_t
	for _, name := range []string{"", "memory", "pids", "cpu"} {
		root := filepath.Join(cgroupMount, name)
		if unix.Statfs(root, &fs) != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC && fs.Type != unix.CGROUP_SUPER_MAGIC {
			continue
		}
		for line := range strings.Lines(string(lines)) { // such as 4:memory:/path, and 0::/path of v2
			if fields := strings.SplitN(strings.TrimSpace(line), ":", 3); len(fields) == 3 && fields[1] == name {
				return root, filepath.Join(root, fields[2])
			}
		}
	}
	t.Skip("no cgroup hierarchy that the programs use is mounted")
	return "", ""
}
