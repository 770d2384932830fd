package kernel_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/tcp"
	"github.com/tcpshift/tcpshift/test/injector"
	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// allowFastOpen lets clients send data with the SYN, also without a cookie: flags 1 and 4 of
// net.ipv4.tcp_fastopen. connect() of a socket with TCP_FASTOPEN_CONNECT then returns at
// once, and the SYN waits for the first write.
func allowFastOpen(n *tcplab.Netns) { n.Sysctl("net.ipv4.tcp_fastopen", "5") }

// A socket whose SYN waits for a first write that never comes has a port, which connect()
// has chosen. In its second life it still has the sequence numbers, and the error, of the
// connect() that was given up before; the record must not show them as bytes and error.
func TestConnection_FastOpenNeverWritten(t *testing.T) {
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
						allowFastOpen(n)
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

// The process is killed, or the socket destroyed, while the SYN waits for the first write.
func TestConnection_FastOpenProcessDies(t *testing.T) {
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
			allowFastOpen(env.Netns)
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
// port and is given up, times out, or becomes a connection later.
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
					allowFastOpen(n)
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
				allowFastOpen(n)
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
	allowFastOpen(env.Netns)
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

// A child is created without an error, without a process that has it open, without an owner
// of its lock, and with the user of its listener, whatever happens to it before its first
// transition is emitted: up to 6.12 that is when it leaves SYN_RECV.
func TestConnection_FastOpenChildCreation(t *testing.T) {
	const listenerUID = 1234
	for name, end := range map[string]func(v *victim){
		"reset by the peer":  reset,
		"reset by its owner": func(v *victim) { v.SetLinger(0) },
	} {
		t.Run(name, func(t *testing.T) {
			n := tcplab.NewNetns(t)
			n.Sysctl("net.ipv4.tcp_fastopen", fastOpenBothWithoutCookie)
			o := probe.Options{Filter: filter.Filter{Netns: []uint32{n.Inode()}}}
			all := harness.Transitions(t, o, func() {
				listener := n.Listen(tcplab.V4.At(7001), func(s *tcplab.Socket) { s.SetsockoptInt(unix.IPPROTO_TCP, unix.TCP_FASTOPEN, 16) })
				if err := unix.Fchown(listener.FD, listenerUID, -1); err != nil {
					t.Fatal(err)
				}
				p := injector.New(t, n, tcplab.V4.At(peerPort))
				v := &victim{}
				v.peer, _ = p.Open(tcplab.V4.At(7001), "early")
				v.Socket = listener.Accept()
				end(v)
				v.Close()
				n.Settle(2) // the listener and that of the peer
				p.Close()
				listener.Close()
			})
			checkCreation(t, all, listenerUID)
		})
	}
}

func checkCreation(t *testing.T, all []tcp.Transition, uid uint32) {
	t.Helper()
	created, ended := false, false
	for _, c := range all {
		ended = ended || c.Old == tcp.SynRecv && c.New == tcp.Close
		if c.Old != tcp.Listen || c.New != tcp.SynRecv {
			continue
		}
		created = true
		if c.Error != 0 || !c.NoProcess || c.Locked || c.UID != uid {
			t.Errorf("created with error %d, as an orphan: %v, locked: %v, of user %d; want 0, true, false, %d",
				c.Error, c.NoProcess, c.Locked, c.UID, uid)
		}
	}
	if !created || !ended {
		t.Errorf("the test is wrong: no child was created, or none ended in SYN_RECV: %+v", all)
	}
}
