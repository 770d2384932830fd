package snapshot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/decode"
	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/netns"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/tcp"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

var errBroken = errors.New("it is broken")

// sink keeps all lines.
type sink struct {
	strings.Builder
	writes int
	err    error
}

func (s *sink) Write(lines []byte) (int, error) {
	s.writes++
	if s.err != nil {
		return 0, s.err
	}
	return s.Builder.Write(lines)
}

// encoder writes a few words for a socket.
type encoder struct{ seq uint64 }

func (*encoder) Header(dst []byte) []byte { return append(dst, "header\n"...) }

func (e *encoder) SetSeq(seq uint64) { e.seq = seq }

func (e *encoder) Socket(dst []byte, s *tcp.Socket) []byte {
	cgroup := "-"
	if s.Cgroup != nil {
		cgroup = s.Cgroup.Path + s.Cgroup.ContainerName
	}
	return fmt.Appendf(dst, "%d %x %v %v %s\n", e.seq, s.Cookie, s.New, s.ExpiresIn, cgroup)
}

// socket is a socket_event as in bpf/event.h.
func socket(cookie, cgroup uint64, state tcp.State, expires uint64) []byte {
	b := make([]byte, 168)
	binary.NativeEndian.PutUint64(b[8:], cookie)
	binary.NativeEndian.PutUint64(b[16:], cgroup)
	copy(b[100:], []byte{4, 4, 0, byte(state)})
	binary.NativeEndian.PutUint64(b[112:], expires)
	binary.NativeEndian.PutUint32(b[120:], 18750)
	return b
}

// cgroupPath is a cgroup_event with one level.
func cgroupPath(id uint64, truncated byte, name string) []byte {
	b := make([]byte, 3088)
	binary.NativeEndian.PutUint64(b[0:], id)
	b[8], b[12], b[13] = 1, truncated, 3
	copy(b[16:], name)
	return b
}

func newSnapshotTo(out *sink, which *Sockets) *snapshot {
	s := newSnapshot(which)
	s.enc, s.out = new(encoder), out
	return s
}

// Sockets are numbered, and have the cgroups whose paths came before them.
func TestHandle_SeqAndCgroup(t *testing.T) {
	out := &sink{}
	s := newSnapshotTo(out, &Sockets{})
	const keepalive = 75 * time.Second // 18,750 jiffies of 4 ms
	for _, sample := range [][]byte{
		cgroupPath(7, 0, "web"), cgroupPath(8, 1, "cut off"),
		socket(1, 7, tcp.Listen, 0), socket(2, 8, tcp.Established, 0), socket(3, 9, tcp.Established, 0), socket(4, 0, tcp.CloseWait, 0),
		socket(5, 0, tcp.TimeWait, 2500), socket(6, 0, tcp.TimeWait, 1<<64-1),
	} {
		if err := s.handle(sample, keepalive); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.flush(); err != nil {
		t.Fatal(err)
	}
	const want = `1 1 LISTEN 0s /web
2 2 ESTABLISHED 0s -
3 3 ESTABLISHED 0s -
4 4 CLOSE_WAIT 0s -
5 5 TIME_WAIT 10s -
6 6 TIME_WAIT 0s -
`
	if got := out.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// The remaining time of a TIME_WAIT follows from the length of a jiffy.
func TestExpiresIn_Jiffies(t *testing.T) {
	const overdue = 1<<64 - 5
	for _, tt := range []struct {
		state                      tcp.State
		expires, keepaliveInterval uint64
		keepalive                  time.Duration
		want                       time.Duration
	}{
		{tcp.TimeWait, 6000, 7500, 75 * time.Second, time.Minute},       // 100 Hz
		{tcp.TimeWait, 15000, 18750, 75 * time.Second, time.Minute},     // 250 Hz
		{tcp.TimeWait, 60000, 75000, 75 * time.Second, time.Minute},     // 1000 Hz
		{tcp.TimeWait, 18000, 22500, 75 * time.Second, time.Minute},     // 300 Hz, whose jiffy is not a whole number of nanoseconds
		{tcp.TimeWait, 1, 1000, time.Second, time.Millisecond},          // another interval
		{tcp.TimeWait, 500, 250 * 32767, 32767 * time.Second, 2e9},      // the longest
		{tcp.TimeWait, 0, 18750, 75 * time.Second, 0},                   // due now
		{tcp.TimeWait, overdue, 18750, 75 * time.Second, 0},             // overdue
		{tcp.TimeWait, 15000, 18750, 0, 0},                              // the interval in seconds is unknown
		{tcp.TimeWait, 15000, 0, 75 * time.Second, 0},                   // the interval in jiffies is unknown
		{tcp.Established, 15000, 18750, 75 * time.Second, 0},            // no TIME_WAIT
		{tcp.TimeWait, 1 << 40, 18750, 75 * time.Second, 1 << 40 * 4e6}, // an impossible value must not fail
	} {
		e := decode.Event{JiffiesLeft: int64(tt.expires), KeepaliveJiffies: tt.keepaliveInterval}
		e.Transition.New = tt.state
		got := expiresIn(&e, tt.keepalive)
		if off := (got - tt.want).Abs(); off > tt.want/1e6 {
			t.Errorf("%v, %d jiffies, %d of them in %v: %v left, want %v", tt.state, tt.expires, tt.keepaliveInterval, tt.keepalive, got, tt.want)
		}
	}
}

// Many sockets are written in batches.
func TestHandle_WritesInBatches(t *testing.T) {
	out := &sink{}
	s := newSnapshotTo(out, &Sockets{})
	const n = 20000
	for i := range n {
		if err := s.handle(socket(uint64(i), 0, tcp.Established, 0), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.flush(); err != nil || strings.Count(out.String(), "\n") != n {
		t.Errorf("%d lines and the error %v, want %d", strings.Count(out.String(), "\n"), err, n)
	}
	if least := out.Len() / (batchSize + 100); out.writes < max(2, least) {
		t.Errorf("%d bytes in %d writes, want at least %d", out.Len(), out.writes, max(2, least))
	}
}

// An invalid sample ends the snapshot.
func TestHandle_InvalidSample(t *testing.T) {
	s := newSnapshotTo(&sink{}, &Sockets{})
	if err := s.handle([]byte{1, 2, 3}, 0); err == nil {
		t.Error("three bytes are accepted as a sample")
	}
}

// take makes a snapshot of real namespaces.
func take(t *testing.T, namespaces []netns.Namespace, out *sink) error {
	t.Helper()
	return Take(&Sockets{Namespaces: namespaces, Filter: &filter.Filter{}}, record.NewNative(nil), out)
}

func find(t *testing.T, inodes ...uint32) []netns.Namespace {
	t.Helper()
	all, err := netns.Find(inodes)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Every socket of the selected namespaces comes once, and no other.
func TestTake_SelectedNamespaces(t *testing.T) {
	one, other, third := tcplab.NewNetns(t), tcplab.NewNetns(t), tcplab.NewNetns(t)
	for i, n := range []*tcplab.Netns{one, other, third} {
		n.Listen(netip.AddrPortFrom(tcplab.V4.Loopback(), uint16(17201+i)))
		n.Listen(netip.AddrPortFrom(tcplab.V6.Loopback(), uint16(17201+i)))
	}
	out := &sink{}
	if err := take(t, find(t, one.Inode(), other.Inode()), out); err != nil {
		t.Fatal(err)
	}
	for _, port := range []string{"17201", "17202"} {
		for _, addr := range []string{"127.0.0.1", "::1"} {
			socket := fmt.Sprintf(`"local_addr":%q,"local_port":%s,"role":"listener","state":"LISTEN"`, addr, port)
			if n := strings.Count(out.String(), socket); n != 1 {
				t.Errorf("%s comes %d times, want once:\n%s", socket, n, out.String())
			}
		}
	}
	if n := strings.Count(out.String(), "\n"); n != 4 {
		t.Errorf("%d sockets, want 4:\n%s", n, out.String())
	}
}

// The header is written once, even without sockets.
func TestTake_HeaderWithoutSockets(t *testing.T) {
	n := tcplab.NewNetns(t)
	out := &sink{}
	if err := Take(&Sockets{Namespaces: find(t, n.Inode()), Filter: &filter.Filter{}}, new(encoder), out); err != nil || out.String() != "header\n" {
		t.Errorf("got %q, %v", out.String(), err)
	}
	out = &sink{}
	if err := take(t, find(t, n.Inode()), out); err != nil || out.writes != 0 {
		t.Errorf("%d writes without a socket, %v", out.writes, err)
	}
}

// A sink that fails ends the snapshot.
func TestTake_SinkFails(t *testing.T) {
	n := tcplab.NewNetns(t)
	n.Listen(netip.AddrPortFrom(tcplab.V4.Loopback(), 17201))
	out := &sink{err: errBroken}
	if err := take(t, find(t, n.Inode()), out); !errors.Is(err, errBroken) || out.writes != 1 {
		t.Errorf("the error is %v after %d writes, want %v after one", err, out.writes, errBroken)
	}
}

// Sockets that were listed before a failure are written; a header alone is not.
func TestTake_FailureAfterSockets(t *testing.T) {
	one := tcplab.NewNetns(t)
	one.Listen(netip.AddrPortFrom(tcplab.V4.Loopback(), 17201))
	namespaces := append(find(t, one.Inode()), netns.Namespace{Inode: 1, Path: "/proc/1/ns/gone", Required: true})
	out := &sink{}
	if err := take(t, namespaces, out); err == nil || strings.Count(out.String(), "\n") != 1 {
		t.Errorf("the error is %v, and this is written: %q; want one, and the first namespace's socket", err, out.String())
	}
	out = &sink{}
	if err := Take(&Sockets{Namespaces: namespaces[1:], Filter: &filter.Filter{}}, new(encoder), out); err == nil || out.writes != 0 {
		t.Errorf("the error is %v, and this is written: %q; want one, and no header alone", err, out.String())
	}
}
