package kernel_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// putOff lets connect() of a socket with TCP_FASTOPEN_CONNECT return at once: the SYN
// waits for the first write. net.ipv4.tcp_fastopen has the client's bit, and the one
// that needs no cookie.
func putOff(n *tcplab.Netns) { n.Sysctl("net.ipv4.tcp_fastopen", "5") }

// wantEnd checks the record of a connect() that did not come to a connection.
func wantEnd(t *testing.T, l harness.Record, closedBy, errno string, port uint16) {
	t.Helper()
	if l.ClosedBy != closedBy || l.Error != errno || l.LocalPort != port {
		t.Errorf("closed_by %q, error %q, local_port %d, want %q, %q, %d: %s", l.ClosedBy, l.Error, l.LocalPort, closedBy, errno, port, l.Raw)
	}
	wantBytes(t, l, 0, 0)
}

// lastEnd returns the last of a number of connection records of a socket.
func lastEnd(t *testing.T, lines []harness.Record, cookie uint64, lives int) harness.Record {
	t.Helper()
	ends := harness.RecordsWith(lines, "connection", cookie)
	if len(ends) != lives {
		t.Fatalf("%d connection records, want %d", len(ends), lives)
	}
	return ends[lives-1]
}

// A fast open that is put off and never written has a port, which connect() has chosen.
// In its second life the socket has the numbers, and the error, of a connect() that was
// given up before.
func TestConnection_FastOpenPutOff(t *testing.T) {
	harness.RequireFeature(t, probe.SocketStorage)
	for name, end := range map[string]func(*tcplab.Socket){
		"closed": (*tcplab.Socket).Close, "disconnected": (*tcplab.Socket).Disconnect,
	} {
		for lives := 1; lives <= 2; lives++ {
			for _, f := range tcplab.Families {
				t.Run(fmt.Sprintf("%s in life %d %v", name, lives, f), func(t *testing.T) {
					var cookie uint64
					var port uint16
					lines := harness.RecordsByCookie(t, func(n *tcplab.Netns) {
						putOff(n)
						silent := n.Listen(listenAt(f, 7001), (*tcplab.Socket).DropIncoming)
						s := n.Socket(f.Loopback())
						cookie = s.Cookie()
						for range lives - 1 {
							s.StartConnect(f.At(7001))
							s.Disconnect()
						}
						s.SetsockoptInt(unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1)
						s.Connect(f.At(7001))
						port = s.Addr().Port()
						end(s)
						if s.FD >= 0 {
							s.Close()
						}
						silent.Close()
					})
					wantEnd(t, lastEnd(t, lines, cookie, lives), "local", "", port)
				})
			}
		}
	}
}

// listenAt is where a listener of the family listens.
func listenAt(f tcplab.Family, port uint16) netip.AddrPort {
	if f == tcplab.Mapped {
		return f.Anywhere(port)
	}
	return f.At(port)
}

// A process is killed, and a socket destroyed, while a fast open is put off.
func TestConnection_FastOpenPutOffByDeadProcess(t *testing.T) {
	harness.RequireFeature(t, probe.SocketStorage)
	for name, row := range map[string]struct {
		end             func(env *harness.Env, a *harness.Actor, s *harness.Socket)
		closedBy, error string
	}{
		"killed": {func(_ *harness.Env, a *harness.Actor, _ *harness.Socket) { a.Kill() }, "local", ""},
		"aborted": {func(env *harness.Env, _ *harness.Actor, s *harness.Socket) {
			env.StartActor("destroyer", 1).Destroy(s)
		}, "abort", "ECONNABORTED"},
	} {
		t.Run(name, func(t *testing.T) {
			env := harness.NewEnv(t)
			env.UseSharedTracers()
			putOff(env.Netns)
			client := env.StartActor("client", 1)
			s := client.Socket(harness.LoopbackAddr, unix.IPPROTO_TCP)
			client.SetInt(s, unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1)
			client.Connect(s, harness.At(7001))
			s.Peer = harness.At(7001) // getpeername() has none yet
			row.end(env, client, s)
			for _, l := range harness.OfType(env.Finish(), "connection") {
				if l.Conn == s.Conn && s.Conn != "" {
					wantEnd(t, l, row.closedBy, row.error, s.Local.Port())
				}
			}
		})
	}
}

// The SYN of a fast open, with data, is dropped on this host by a full queue. It has a
// port and is given up, times out, or comes to a connection later.
func TestConnection_FastOpenDropped(t *testing.T) {
	harness.SharedTracers(t)
	for name, row := range map[string]struct {
		end             func(n *tcplab.Netns, s *tcplab.Socket)
		closedBy, error string
	}{
		"closed":       {func(_ *tcplab.Netns, s *tcplab.Socket) { s.Close() }, "local", ""},
		"disconnected": {func(_ *tcplab.Netns, s *tcplab.Socket) { s.Disconnect() }, "local", ""},
		"timed out":    {func(_ *tcplab.Netns, s *tcplab.Socket) { s.AwaitError(unix.ETIMEDOUT) }, "timeout", "ETIMEDOUT"},
	} {
		for _, f := range tcplab.Families {
			t.Run(fmt.Sprintf("%s %v", name, f), func(t *testing.T) {
				t.Parallel()
				var cookie uint64
				var port uint16
				lines := harness.RecordsByCookie(t, func(n *tcplab.Netns) {
					putOff(n)
					n.FillQueue()
					s := n.Socket(f.Loopback())
					cookie = s.Cookie()
					s.SetsockoptInt(unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 1)
					fastOpen(t, s, f)
					s.Await(tcplab.SynSent)
					port = s.Addr().Port()
					row.end(n, s)
					if s.FD >= 0 {
						s.Close()
					}
					n.FreeQueue()
				})
				wantEnd(t, end(t, lines, cookie), row.closedBy, row.error, port)
			})
		}
	}
}

// fastOpen sends "early" with the SYN. The kernel keeps the text if it could not send it.
func fastOpen(t *testing.T, s *tcplab.Socket, f tcplab.Family) {
	t.Helper()
	err := s.TryWriteFastOpen("early", f.At(7001), unix.MSG_DONTWAIT)
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		t.Fatalf("sendto MSG_FASTOPEN: %v", err)
	}
}

// The queue has room again: the connection carries the text, which counts once.
func TestConnection_FastOpenDroppedAtFirst(t *testing.T) {
	harness.RequireFeature(t, probe.SocketStorage)
	for _, f := range tcplab.Families {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			var cookie, childCookie uint64
			lines := harness.RecordsByCookie(t, func(n *tcplab.Netns) {
				putOff(n)
				listener := n.Listen(listenAt(f, 7001))
				n.FillQueue()
				s := n.Socket(f.Loopback())
				cookie = s.Cookie()
				fastOpen(t, s, f)
				s.AwaitInfo("a failed transmit", func(i *unix.TCPInfo) bool { return i.State == uint8(tcplab.SynSent) })
				n.FreeQueue()
				child := listener.Accept()
				childCookie = child.Cookie()
				readAll(child, len("early"))
				s.Close()
				child.ReadEOF()
				child.Close()
				listener.Close()
			})
			wantBytes(t, end(t, lines, cookie), uint64(len("early")), 0)
			wantBytes(t, end(t, lines, childCookie), 0, uint64(len("early")))
		})
	}
}

// A BPF program of the process's cgroup drops the SYN of a fast open, with data.
func TestConnection_FastOpenDroppedByCgroup(t *testing.T) {
	env := harness.NewEnv(t)
	env.UseSharedTracers()
	putOff(env.Netns)
	client := env.StartActor("client", 1)
	dropEgress(t, client.EnterCgroup2("drops"))
	s := client.DialFast(harness.At(7001), "early", unix.MSG_DONTWAIT)
	s.NothingSent()
	client.Close(s)
	for _, l := range harness.OfType(env.Finish(), "connection") {
		if l.Conn == s.Conn && s.Conn != "" {
			wantEnd(t, l, "local", "", s.Local.Port())
		}
	}
}

func dropEgress(t *testing.T, cgroup string) {
	t.Helper()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.CGroupSKB, License: "GPL", AttachType: ebpf.AttachCGroupInetEgress,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	l, err := link.AttachCgroup(link.CgroupOptions{Path: cgroup, Attach: ebpf.AttachCGroupInetEgress, Program: program})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
}

// A routing rule refuses the connection once its port is known. The search of IPv6 does
// not come again then.
func TestConnection_RouteRefusedAfterPort(t *testing.T) {
	harness.RequireFeature(t, probe.SocketStorage)
	for name, row := range map[string]struct {
		action uint8
		err    unix.Errno
	}{"prohibit": {unix.FR_ACT_PROHIBIT, unix.EACCES}, "unreachable": {unix.FR_ACT_UNREACHABLE, unix.ENETUNREACH}} {
		for _, f := range []tcplab.Family{tcplab.V4, tcplab.Mapped} {
			t.Run(fmt.Sprintf("%s %v", name, f), func(t *testing.T) {
				var cookie uint64
				var port uint16
				lines := harness.RecordsByCookie(t, func(n *tcplab.Netns) {
					n.RefuseRoutes(row.action, 1024)
					s := n.Socket(f.Loopback())
					cookie = s.Cookie()
					if err := s.TryConnect(f.At(7001)); !errors.Is(err, row.err) {
						t.Fatalf("connect: %v, want %v", err, row.err)
					}
					port = s.Addr().Port()
					s.Close()
					n.AllowRoutes()
				})
				if port == 0 {
					t.Fatal("getsockname: no port")
				}
				wantEnd(t, end(t, lines, cookie), "local", "", port)
			})
		}
	}
}

// A connection between these addresses and ports exists already: connect() from the
// bound port fails, in the first life of the socket and in the second.
func TestConnection_AddressInUse(t *testing.T) {
	for lives := 1; lives <= 2; lives++ {
		for _, f := range tcplab.Families {
			t.Run(fmt.Sprintf("life %d %v", lives, f), func(t *testing.T) {
				if lives > 1 {
					harness.RequireFeature(t, probe.SocketStorage)
				}
				var cookie uint64
				lines := harness.RecordsByCookie(t, func(n *tcplab.Netns) {
					listener, other := n.Listen(listenAt(f, 7001)), n.Listen(listenAt(f, 7002))
					first, second := n.Socket(f.Loopback()), n.Socket(f.Loopback())
					cookie = second.Cookie()
					for _, s := range []*tcplab.Socket{first, second} {
						s.ReuseAddr()
						s.Bind(f.At(7200))
					}
					first.Connect(f.At(7001))
					for range lives - 1 {
						second.Connect(f.At(7002))
						second.Disconnect()
					}
					if err := second.TryConnect(f.At(7001)); !errors.Is(err, unix.EADDRNOTAVAIL) {
						t.Fatalf("connect: %v", err)
					}
					for _, s := range []*tcplab.Socket{first, second, listener, other} {
						s.SetLinger(0)
						s.Close()
					}
				})
				wantEnd(t, lastEnd(t, lines, cookie, lives), "address_in_use", "", 7200)
			})
		}
	}
}

// No port is free: closed_by is no_port, and local_port is absent, in the first life of
// a socket and in the second.
func TestConnection_NoPort(t *testing.T) {
	for lives := 1; lives <= 2; lives++ {
		for _, f := range tcplab.Families {
			t.Run(fmt.Sprintf("life %d %v", lives, f), func(t *testing.T) {
				if lives > 1 {
					harness.RequireFeature(t, probe.SocketStorage)
				}
				var cookie uint64
				lines := harness.RecordsByCookie(t, func(n *tcplab.Netns) {
					n.Sysctl("net.ipv4.ip_local_port_range", "40000 40001")
					listener := n.Listen(listenAt(f, 7001))
					s := n.Socket(f.Loopback())
					cookie = s.Cookie()
					for range lives - 1 {
						s.Connect(f.At(7001))
						s.SetLinger(0)
						s.Disconnect()
					}
					open := []*tcplab.Socket{n.Dial(f.At(7001)), n.Dial(f.At(7001)), s, listener}
					if err := s.TryConnect(f.At(7001)); !errors.Is(err, unix.EADDRNOTAVAIL) {
						t.Fatalf("connect: %v", err)
					}
					for _, s := range open {
						s.SetLinger(0)
						s.Close()
					}
					n.Sysctl("net.ipv4.ip_local_port_range", "32768 60999")
				})
				wantEnd(t, lastEnd(t, lines, cookie, lives), "no_port", "", 0)
			})
		}
	}
}

// A second listen() on a port fails after the kernel has set LISTEN: nobody has closed a
// listener, also if the socket was one before.
func TestConnection_ListenFails(t *testing.T) {
	for lives := 1; lives <= 2; lives++ {
		for _, f := range tcplab.Families {
			t.Run(fmt.Sprintf("life %d %v", lives, f), func(t *testing.T) {
				var cookie uint64
				lines := harness.RecordsByCookie(t, func(n *tcplab.Netns) {
					first, second := n.Socket(f.Loopback()), n.Socket(f.Loopback())
					cookie = second.Cookie()
					for _, s := range []*tcplab.Socket{first, second} {
						s.ReuseAddr()
						s.Bind(listenAt(f, 7001))
					}
					for range lives - 1 {
						if err := unix.Listen(second.FD, 1); err != nil {
							t.Fatal(err)
						}
						second.Shutdown(unix.SHUT_RD)
					}
					if err := unix.Listen(first.FD, 1); err != nil {
						t.Fatal(err)
					}
					if err := unix.Listen(second.FD, 1); !errors.Is(err, unix.EADDRINUSE) {
						t.Fatalf("listen: %v", err)
					}
					second.Close()
					first.Close()
				})
				wantEnd(t, lastEnd(t, lines, cookie, lives), "", "", 7001)
				var path []string
				for _, l := range harness.RecordsWith(lines, "transition", cookie) {
					path = append(path, l.Old+" "+l.New)
				}
				if got, want := strings.Join(path, ", "), strings.Repeat(", CLOSE LISTEN, LISTEN CLOSE", lives)[2:]; got != want {
					t.Errorf("transitions %s, want %s", got, want)
				}
			})
		}
	}
}

// listen() without bind() chooses the port after the transition to LISTEN, whose record
// has it.
func TestConnection_ListenWithoutBind(t *testing.T) {
	for _, f := range []tcplab.Family{tcplab.V4, tcplab.V6} {
		t.Run(f.String(), func(t *testing.T) {
			var cookie uint64
			var port uint16
			lines := harness.RecordsByCookie(t, func(n *tcplab.Netns) {
				s := n.Socket(f.Loopback())
				cookie = s.Cookie()
				if err := unix.Listen(s.FD, 1); err != nil {
					t.Fatal(err)
				}
				port = s.Addr().Port()
				harness.AwaitRead(t, cookie) // the reader asks for the port as long as the socket exists
				s.Close()
			})
			transitions := harness.RecordsWith(lines, "transition", cookie)
			if len(transitions) != 2 {
				t.Errorf("%d transitions, want 2", len(transitions))
			}
			for _, l := range append(transitions, end(t, lines, cookie)) {
				if l.LocalPort != port {
					t.Errorf("local_port %d, want %d: %s", l.LocalPort, port, l.Raw)
				}
			}
		})
	}
}
