package limits

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// listenUnaccepted listens with a backlog, and accepts nothing.
func listenUnaccepted(t *testing.T, family int, backlog int) netip.AddrPort {
	t.Helper()
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Skipf("socket: %v", err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	var at unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	if family == unix.AF_INET6 {
		at = &unix.SockaddrInet6{Addr: [16]byte{15: 1}}
	}
	if err := unix.Bind(fd, at); err != nil {
		t.Skipf("bind: %v", err)
	}
	if err := unix.Listen(fd, backlog); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	switch at := name.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(at.Addr), uint16(at.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(at.Addr), uint16(at.Port))
	}
	t.Fatalf("%T", name)
	return netip.AddrPort{}
}

// sock_diag gives a listener with the length of its accept queue, its backlog and what it has
// dropped, and the connections in the queue; the namespace's counters count the drops, too.
func TestListeners_FullQueue(t *testing.T) {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		t.Run(fmt.Sprint(family), func(t *testing.T) {
			at := listenUnaccepted(t, family, 2)
			find := func() (found tcp.Listener) {
				t.Helper()
				err := EachListener(func(l *tcp.Listener) {
					if l.Local == (tcp.Endpoint{Addr: at.Addr(), Port: at.Port()}) {
						found = *l
					}
				})
				if err != nil || found.Cookie == 0 || found.Inode == 0 {
					t.Fatalf("%+v, %v", found, err)
				}
				return found
			}
			if l := find(); l.Queued != 0 || l.Backlog != 2 || l.Drops != 0 {
				t.Errorf("a new listener: %+v", l)
			}
			before, err := ReadListenDrops()
			if err != nil {
				t.Fatal(err)
			}
			for range 4 { // the queue takes three
				c, err := net.DialTimeout("tcp", at.String(), 300*time.Millisecond)
				if err != nil {
					break
				}
				t.Cleanup(func() { c.Close() })
			}
			after, err := ReadListenDrops()
			if err != nil {
				t.Fatal(err)
			}
			l := find()
			if l.Queued != 3 || !l.IsFull() || l.Drops == 0 {
				t.Errorf("three connections in a queue for two: %+v", l)
			}
			if after.Overflows-before.Overflows < uint64(l.Drops) || after.Drops-before.Drops < uint64(l.Drops) {
				t.Errorf("the listener has dropped %d; the counters were %+v and are %+v", l.Drops, before, after)
			}
			waiting := map[uint64]bool{}
			err = EachUnaccepted([]uint16{1, at.Port()}, func(s tcp.UnacceptedSocket) {
				waiting[s.Cookie] = s.Local == l.Local
			})
			if err != nil || len(waiting) != 3 {
				t.Errorf("%d connections wait, want 3: %v", len(waiting), err)
			}
			for cookie, here := range waiting {
				if cookie == 0 || !here {
					t.Errorf("%v", waiting)
				}
			}
		})
	}
}

// A connection that a process has accepted does not wait.
func TestListeners_Accepted(t *testing.T) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	connect(t, listener)
	port := listener.Addr().(*net.TCPAddr).AddrPort().Port()
	if err := EachUnaccepted([]uint16{port}, func(s tcp.UnacceptedSocket) { t.Errorf("%+v", s) }); err != nil {
		t.Error(err)
	}
}

// The counters are found by their names, wherever the kernel puts them.
func TestTCPCounters_ByName(t *testing.T) {
	names := []string{"ListenOverflows", "ListenDrops"}
	for text, want := range map[string][]uint64{
		"TcpExt: SyncookiesSent ListenOverflows ListenDrops X\nTcpExt: 1 2 3 4\nIpExt: A\nIpExt: 1\n": {2, 3},
		"IpExt: A\nIpExt: 1\nTcpExt: ListenDrops ListenOverflows\nTcpExt: 7 8\n":                      {8, 7},
	} {
		if got, err := parseTCPCounters([]byte(text), names); err != nil || !slices.Equal(got, want) {
			t.Errorf("%v, %v, want %v", got, err, want)
		}
	}
	for _, text := range []string{
		"", "TcpExt: A\nTcpExt: 1\n", "TcpExt: ListenDrops\nTcpExt: 1\n", "TcpExt: ListenDrops ListenOverflows\n",
		"TcpExt: ListenDrops ListenOverflows\nTcpExt: 1\n", "TcpExt: ListenDrops ListenOverflows\nTcpExt: 1 x\n",
	} {
		if got, err := parseTCPCounters([]byte(text), names); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// The filter for local ports is the bytecode of sock_diag, byte for byte (on little-endian
// machines as here).
func TestLocalPortFilter_Bytecode(t *testing.T) {
	want := "2400" + "0100" + "070c1000" + "00000000" + "50000000" + "01041400" + "070c1400" + "00000000" + "51000000" + "01040400"
	if got := hex.EncodeToString(localPortFilter([]uint16{80, 81})); got != want {
		t.Errorf("the filter is\n%s, want\n%s", got, want)
	}
	if localPortFilter(nil) != nil || localPortFilter(make([]uint16, maxFilterConds+1)) != nil {
		t.Error("there is a filter for no port, or for too many")
	}
}

// A reading of the listeners walks their table only.
func BenchmarkListeners(b *testing.B) {
	for range 50 {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { l.Close() })
	}
	b.Run("table", func(b *testing.B) {
		for b.Loop() {
			count := 0
			if err := EachListener(func(*tcp.Listener) { count++ }); err != nil || count < 50 {
				b.Fatal(count, err)
			}
		}
	})
	b.Run("counters", func(b *testing.B) {
		for b.Loop() {
			if _, err := ReadListenDrops(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
