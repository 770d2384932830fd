package tcplab

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A namespace has its own inode and sysctls.
func TestNetns_ApartFromHost(t *testing.T) {
	n, other := NewNetns(t), NewNetns(t)
	var host unix.Stat_t
	check(t, unix.Stat("/proc/self/ns/net", &host))
	if n.Inode() == 0 || uint64(n.Inode()) == host.Ino || n.Inode() == other.Inode() {
		t.Errorf("inodes: host %d, namespaces %d and %d", host.Ino, n.Inode(), other.Inode())
	}

	const name, file = "net.ipv4.tcp_fin_timeout", "/proc/sys/net/ipv4/tcp_fin_timeout"
	onHost := read(t, file)
	before := n.Sysctl(name, "7")
	if after := n.Sysctl(name, before); after != "7" {
		t.Errorf("sysctl set to 7 reads %q", after)
	}
	n.Sysctl(name, "7")
	if now := read(t, file); now != onHost {
		t.Errorf("sysctl changed the host's value from %s to %s", onHost, now)
	}
}

// Making and using namespaces does not move the process into another namespace.
func TestNetns_ProcessKeepsItsOwn(t *testing.T) {
	var before, now unix.Stat_t
	check(t, unix.Stat("/proc/self/ns/net", &before))
	for range 50 {
		n := NewNetns(t)
		n.Threads(2, func(int) error { return nil })
		check(t, unix.Stat("/proc/self/ns/net", &now))
		if now.Ino != before.Ino {
			t.Fatalf("the process moved from namespace %d to %d", before.Ino, now.Ino)
		}
	}
}

// Do uses one thread of the namespace, Threads several new ones.
func TestNetns_DoAndThreads(t *testing.T) {
	n := NewNetns(t)
	tids := map[int]bool{}
	for range 3 {
		n.Do(func() { tids[unix.Gettid()] = true })
	}
	if len(tids) != 1 {
		t.Errorf("Do ran on threads %v", tids)
	}
	together := make(chan int)
	n.Threads(2, func(i int) error {
		if i == 0 { // both threads must run at the same time
			together <- unix.Gettid()
			return nil
		}
		tids[<-together] = true
		tids[unix.Gettid()] = true
		var st unix.Stat_t
		err := unix.Stat("/proc/thread-self/ns/net", &st)
		if st.Ino != uint64(n.Inode()) {
			t.Errorf("thread runs in namespace %d, want %d", st.Ino, n.Inode())
		}
		return err
	})
	if len(tids) != 3 {
		t.Errorf("Do and Threads ran on threads %v, want 3", tids)
	}
}

// Table lists sockets of both address families.
func TestTable_BothFamilies(t *testing.T) {
	n := NewNetns(t)
	for _, f := range Families {
		l := n.Listen(f.At(0))
		if !inTable(n, Entry{Local: l.Addr(), Remote: netip.AddrPortFrom(f.Anywhere(0).Addr(), 0), State: Listen}) {
			t.Errorf("%v: no listener at %v in %v", f, l.Addr(), n.Table())
		}
	}
	if got := n.InUse(); got != len(Families) {
		t.Errorf("%d sockets in use, want %d", got, len(Families))
	}
}

func inTable(n *Netns, want Entry) bool {
	for _, e := range n.Table() {
		if e == want {
			return true
		}
	}
	return false
}

// Connections to different addresses may share a local port: rarely, where the kernel
// has all ports to choose from. A scenario does not wait for the other connection.
func TestScenario_SharedLocalPort(t *testing.T) {
	for _, f := range Families {
		t.Run(f.String(), func(t *testing.T) {
			n := NewNetns(t)
			n.Sysctl("net.ipv4.ip_local_port_range", "40001 40001")
			other := n.Listen(f.Anywhere(7100))
			stays := n.Dial(f.At(7100))
			out := HalfClose(n, f)
			if stays.Addr().Port() != out.Client.Local.Port() {
				t.Errorf("local ports %v and %v: want equal ports", stays.Addr(), out.Client.Local)
			}
			if state := State(stays.Info().State); state != Established {
				t.Errorf("the connection to %v is in %v", other.Addr(), state)
			}
		})
	}
}

// Namespaces and scenarios leave no descriptor open.
func TestNetns_NoDescriptorLeak(t *testing.T) {
	RequireRoot(t)
	before := openFiles(t)
	t.Run("in between", func(t *testing.T) {
		n := NewNetns(t)
		l := n.Listen(netip.MustParseAddrPort("127.0.0.1:0"))
		n.Dial(l.Addr())
		l.Accept()
		Storm(n, StormConfig{Connections: 100})
	})
	if after := openFiles(t); after != before {
		t.Errorf("open files before %d, after %d", before, after)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	check(t, err)
	return len(files)
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	check(t, err)
	return strings.TrimSpace(string(text))
}

// recorder is a testing.TB that records which of Fatal and Skip ended the test.
type recorder struct {
	testing.TB
	calls string
}

func (v *recorder) Helper()      {}
func (v *recorder) Fatal(...any) { v.calls += "fatal " } // a real Fatal does not return
func (v *recorder) Skip(...any)  { v.calls += "skip " }

// A test that lacks something is skipped, and fails only under CI=true.
func TestRequireRoot_FailsOnlyUnderCI(t *testing.T) {
	for ci, want := range map[string]string{"true": "fatal", "": "skip"} {
		t.Setenv("CI", ci)
		v := &recorder{TB: t}
		SkipUnlessCI(v, "needs root")
		if got := strings.Fields(v.calls)[0]; got != want {
			t.Errorf("CI=%q: got %s, want %s", ci, got, want)
		}
	}
}
