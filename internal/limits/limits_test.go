package limits

import (
	"errors"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/boottime"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// A list of reserved ports is read, and ports outside the ephemeral range are left out.
func TestReserved_OnlyInRange(t *testing.T) {
	for list, want := range map[string][]uint16{
		"":                         nil,
		"8080":                     nil,
		"40000":                    {40000},
		"39998-40001,40003":        {40000, 40001, 40003},
		"40003,40001-40002,40002":  {40001, 40002, 40003},
		"40008-65535":              {40008, 40009},
		"1-39999,40010-65535":      nil,
		"40005-40001, x, 40002-y,": nil,
	} {
		if got := reserved(list, 40000, 40009); !samePorts(got, want) {
			t.Errorf("%q: %d ports, want %v", list, got.Len(), want)
		}
	}
}

func samePorts(set *tcp.PortSet, list []uint16) bool {
	for _, port := range list {
		if !set.Has(port) {
			return false
		}
	}
	return set.Len() == len(list)
}

// Read reads the limits of the namespace that the test runs in.
func TestRead_OwnNamespace(t *testing.T) {
	l, err := Read()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		t.Fatal(err)
	}
	ends := strings.Fields(string(b))
	if got := []string{strconv.Itoa(int(l.PortLow)), strconv.Itoa(int(l.PortHigh))}; !slices.Equal(got, ends) {
		t.Errorf("the range is %v, want %v", got, ends)
	}
	if l.MaxTimeWaits < 1 || l.TimeWaits < 0 || l.TimeWaitOverflows < 0 || l.FinTimeout < time.Second || l.ReuseDelay <= 0 || l.Assumed {
		t.Errorf("%+v", l)
	}
}

// sock_diag gives the ports of listeners, and open, half-closed and closed connections.
func TestSockDiag_PortsAndSockets(t *testing.T) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	at := listener.Addr().(*net.TCPAddr).AddrPort()
	bound, err := ReadBoundPorts()
	if err != nil {
		t.Fatal(err)
	}
	if !bound.Has(at.Port()) {
		t.Errorf("%d is not among the %d bound ports", at.Port(), bound.Len())
	}
	l, err := Read()
	if err != nil {
		t.Fatal(err)
	}

	open, closed := connect(t, listener), connect(t, listener)
	closed.client.Close()
	if _, err := closed.server.Read(make([]byte, 1)); err == nil {
		t.Error("there is no end of the stream")
	}
	half := find(t, closed.from, func(s *tcp.Socket) bool { return s.Substate == tcp.FinWait2 })
	if half.New != tcp.TimeWait || half.ExpiresIn <= 0 || half.ExpiresIn > l.FinTimeout {
		t.Errorf("closed on one side: %+v", half)
	}
	seen := false
	if err := EachFinWait2(func(s *tcp.Socket) { seen = seen || s.Local.Port == closed.from }); err != nil || !seen {
		t.Errorf("half closed: %v, %v", seen, err)
	}
	closed.server.Close()
	wait := find(t, closed.from, func(s *tcp.Socket) bool { return s.Substate == tcp.TimeWait })
	if wait.ExpiresIn <= 50*time.Second || wait.ExpiresIn > time.Minute || wait.Peer.Port != at.Port() || wait.Local.Addr != at.Addr() {
		t.Errorf("closed on both: %+v", wait)
	}
	if s := find(t, open.from, func(*tcp.Socket) bool { return true }); s.New != tcp.Established || s.Cookie == 0 {
		t.Errorf("open: %+v", s)
	}
}

type pair struct {
	client, server net.Conn
	from           uint16
}

func connect(t *testing.T, l net.Listener) pair {
	t.Helper()
	client, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close()
		server.Close()
	})
	return pair{client, server, client.LocalAddr().(*net.TCPAddr).AddrPort().Port()}
}

// find waits until the socket with this local port is as it should be.
// Each socket has the time at which the kernel listed it, however long a table is being handled:
// so the age of a timewait socket is right also in a late message.
func TestSockDiag_TimeOfEachMessage(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	closedAt := make(map[uint16]time.Duration)
	for range 1500 { // a message has up to 372 sockets
		p := connect(t, l)
		p.client.Close()
		_, _ = p.server.Read(make([]byte, 1))
		p.server.Close() // now the client's socket is in TIME_WAIT
		closedAt[p.from] = boottime.Now()
	}
	count, wrong := 0, 0
	err = EachConnectionOrTimeWait(func(s *tcp.Socket) {
		closed, ours := closedAt[s.Local.Port]
		if !ours || s.Peer.Port != port || s.New != tcp.TimeWait {
			return
		}
		if count++; count == 1 {
			time.Sleep(time.Second) // the messages from the third one on are made after this
		}
		if created := s.Monotonic - (tcp.TimeWaitTimeout - s.ExpiresIn); (created - closed).Abs() > 200*time.Millisecond {
			wrong++
		}
	})
	if err != nil || count < 1000 || wrong > 0 {
		t.Errorf("%v; %d of %d sockets have another age", err, wrong, count)
	}
}

func find(t *testing.T, port uint16, as func(s *tcp.Socket) bool) tcp.Socket {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		var found *tcp.Socket
		err := EachConnectionOrTimeWait(func(s *tcp.Socket) {
			if s.Local.Port == port && as(s) {
				socket := *s
				found = &socket
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if found != nil {
			return *found
		}
	}
	t.Fatalf("no socket with port %d is as it should be", port)
	return tcp.Socket{}
}

// sock_diag gives the sockets in CLOSE_WAIT: whether a process has them, and when it last
// sent on them.
func TestSockDiag_CloseWait(t *testing.T) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	p := connect(t, listener)
	if err := p.client.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.server.Read(make([]byte, 1)); err == nil {
		t.Fatal("there is no end of the stream")
	}
	cookie := cookieOf(t, p.server.(*net.TCPConn))
	time.Sleep(100 * time.Millisecond)
	if s := closeWaits(t)[cookie]; s.Cookie == 0 || !s.Accepted || s.SendQueued || s.SinceSent < 90*time.Millisecond {
		t.Errorf("it has not sent: %+v", s)
	}
	began := time.Now()
	if _, err := p.server.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	s := closeWaits(t)[cookie]
	if most := time.Since(began) + 20*time.Millisecond; s.SinceSent > most {
		t.Errorf("it sent within %v: %+v", most, s)
	}
	before := closeWaits(t)
	client, err := net.Dial("tcp4", listener.Addr().String()) // and no process accepts it
	if err != nil {
		t.Fatal(err)
	}
	client.Close()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		for cookie, s := range closeWaits(t) {
			if _, known := before[cookie]; !known && !s.Accepted {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("the connection that waits in the listener's queue is not found")
		}
	}
}

func closeWaits(t *testing.T) map[uint64]tcp.CloseWaitSocket {
	t.Helper()
	found := make(map[uint64]tcp.CloseWaitSocket)
	if err := EachCloseWait(func(s tcp.CloseWaitSocket) { found[s.Cookie] = s }); err != nil {
		t.Fatal(err)
	}
	return found
}

func cookieOf(t *testing.T, c *net.TCPConn) (cookie uint64) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { cookie, failed = unix.GetsockoptUint64(int(fd), unix.SOL_SOCKET, unix.SO_COOKIE) }); err != nil {
		t.Fatal(err)
	}
	if failed != nil {
		t.Fatal(failed)
	}
	return cookie
}

// A truncated netlink message is an error, and never handled as a socket.
func TestSockDiag_TruncatedMessage(t *testing.T) {
	whole := unsafe.Slice((*byte)(unsafe.Pointer(&struct {
		unix.NlMsghdr
		diagMessage
	}{NlMsghdr: unix.NlMsghdr{Len: 88, Type: sockDiagByFamily}})), 88)
	for size := range len(whole) + 1 {
		count := 0
		done, err := parseMessages(whole[:size], func(*diagMessage, []byte) { count++ })
		cut := size >= int(unsafe.Sizeof(unix.NlMsghdr{})) && size < len(whole)
		if done || (err != nil) != cut || (count == 1) != (size == len(whole)) {
			t.Errorf("%d of %d bytes: %d messages, done %v, %v", size, len(whole), count, done, err)
		}
	}
}

// A dump that the kernel ends with an error is not taken for a whole one.
func TestSockDiag_ErrorAtEnd(t *testing.T) {
	for _, tt := range []struct {
		result int32
		want   error
	}{{0, nil}, {-int32(unix.ENOMEM), unix.ENOMEM}, {-int32(unix.ENOENT), unix.ENOENT}} {
		message := struct {
			unix.NlMsghdr
			result int32
		}{unix.NlMsghdr{Len: 20, Type: unix.NLMSG_DONE}, tt.result}
		raw := unsafe.Slice((*byte)(unsafe.Pointer(&message)), unsafe.Sizeof(message))
		done, err := parseMessages(raw, func(*diagMessage, []byte) { t.Error("a socket is handled") })
		if !done || !errors.Is(err, tt.want) {
			t.Errorf("the result %d: done %v, error %v, want %v", tt.result, done, err, tt.want)
		}
	}
}

// connect() takes over timewait sockets in FIN_WAIT2 up to Linux 6.11 and the stable releases of
// October 2024.
func TestReuse_OfFinWait2ByVersion(t *testing.T) {
	const ubuntu = "Ubuntu 5.15.0-125.135-generic 5.15.167\n"
	for _, tt := range []struct {
		release, version, signature string
		want                        bool
	}{
		{"6.18.44-fc-v782", "#1 SMP PREEMPT_DYNAMIC @0", "", false},
		{"6.12.0", "#1 SMP", "", false},
		{"6.12-rc1", "", "", false},
		{"7.1.5+deb13-cloud-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 7.1.5-1~bpo13+1 (2026-08-01)", "", false},
		{"6.1.0-28-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.119-1 (2024-11-22)", "", false},
		{"6.1.0-25-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.106-3 (2024-08-26)", "", true},
		{"5.10.0-33-cloud-amd64", "#1 SMP Debian 5.10.226-1 (2024-10-03)", "", true},
		{"5.10.0-34-cloud-amd64", "#1 SMP Debian 5.10.234-1 (2025-02-24)", "", false},
		{"5.15.0-125-generic", "#135-Ubuntu SMP", ubuntu, true},
		{"5.15.0-130-generic", "#140-Ubuntu SMP", "Ubuntu 5.15.0-130.140-generic 5.15.168\n", false},
		{"6.6.54", "", "", true},
		{"6.6.55-talos", "", "", false},
		{"6.10.14", "", "", false},
		{"6.9.12", "", "", true},
		{"5.14.0-503.el9.x86_64", "#1 SMP PREEMPT_DYNAMIC", "", true},
		{"", "", "", true},
	} {
		if got := versionReusesFinWait2(upstream(tt.release, tt.version, tt.signature)); got != tt.want {
			t.Errorf("%q, %q, %q: %v, want %v", tt.release, tt.version, tt.signature, got, tt.want)
		}
	}
}

// Sockets that are bound and not connected are known since Linux 6.8.
func TestBoundPorts_KernelVersion(t *testing.T) {
	for release, want := range map[string]bool{
		"5.10.0-28-amd64": false, "6.7.12": false, "6.8.0-31-generic": true, "6.18.44-fc": true, "7.1.5": true, "6.8-rc1": true, "": false, "x": false,
	} {
		if got := isAtLeast(release, 6, 8); got != want {
			t.Errorf("%q: %v, want %v", release, got, want)
		}
	}
}
