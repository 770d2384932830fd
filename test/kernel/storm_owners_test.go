package kernel_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/kernel/harness"
)

// In a storm between two processes, each process owns its own side.
func TestStorm_OwnersOfBothSides(t *testing.T) {
	for _, without := range slices.Backward(harness.Variants()) { // the other storms share the last tracer
		t.Run(fmt.Sprintf("without %v", without), func(t *testing.T) {
			env := harness.NewStormEnv(t, without...)
			harness.CheckStorm(t, env, harness.RunStorm(env, harness.StormConnections(t), harness.OpAccept, harness.OpConnect))
		})
	}
}

// A process reads /proc/PID/fd in a loop, as lsof -p does, beside a process that opens
// and closes connections. It is never named: it has none of them in its descriptor
// table.
func TestStorm_ProcFDReader(t *testing.T) {
	env := harness.NewStormEnv(t)
	st := &harness.Storm{Server: env.StartProgram("storm-server", 1), Client: env.StartProgram("storm-client", 1)}
	reader := env.StartProgram("reader", 1)
	listener := st.Server.Listen(harness.Anywhere(7000))
	reads, writes := st.CreditPipe()
	connections := harness.Scaled(t, 5000, 300)
	fd := st.Client.Must(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM, 0) // the lowest free descriptor
	st.Client.CloseRaw(fd)
	o := reader.Order(harness.OpReadLinks)
	path := fmt.Appendf(nil, "/proc/%d/fd/%d\x00", st.Client.PID, fd)
	o.Put(path)
	o.Send(uintptr(len(path)))
	accept, connect := st.Server.Order(harness.OpAccept), st.Client.Order(harness.OpConnect)
	accept.Send(st.Server.FD(listener), uintptr(connections), uintptr(writes))
	connect.Send(7000, uintptr(connections), uintptr(reads))
	for _, o := range []*harness.Order{accept, connect} {
		if n, err := o.Wait(); n != connections {
			t.Fatalf("%d connections: %v", n, err)
		}
	}
	reader.Kill()
	st.Server.Close(listener)
	env.Netns.Settle(0)
	// Chance decides which of the two closes; what the reader closes has no owner.
	all, known, wrong, breakdown := st.CheckOwners(env, env.Collect()[0])
	t.Logf("%d transitions, %d with an owner, %d wrong%s", all, known, wrong, breakdown)
}

// When a socket is reset or destroyed, the kernel sets its error before its state, and
// may free much data in between. Meanwhile a process reads SO_ERROR, which clears the
// error. Without the error, the end must not look like a close under the lock, so it
// has no wrong owner.
func TestStorm_SocketErrorReader(t *testing.T) {
	rounds := harness.Scaled(t, 60, 20)
	for _, how := range []string{"destroyed", "reset by the peer"} {
		t.Run(how, func(t *testing.T) {
			env := harness.NewStormEnv(t)
			server, client := env.StartActor("a-server", 1), env.StartActor("a-client", 2)
			destroyer := env.StartActor("destroyer", 1)
			env.Netns.Sysctl("net.ipv4.tcp_wmem", "4096 16777216 16777216")
			listener := server.Listen(harness.At(7000))
			mine := map[string]bool{}
			for range rounds {
				c := client.Dial(harness.At(7000))
				s := server.Accept(listener)
				mine[c.Conn] = true
				client.Must(harness.OpSendUntilFull, client.FD(c))
				poll := client.Threads[1].Order(harness.OpAwaitError)
				poll.Send(client.FD(c))
				time.Sleep(time.Millisecond)
				if how == "destroyed" {
					destroyer.Destroy(c)
				} else {
					server.LingerZero(s)
					server.Close(s)
				}
				if _, err := poll.Wait(); err != nil {
					t.Fatal(err)
				}
				client.Close(c)
				server.Close(s)
			}
			server.Close(listener)
			env.Netns.Settle(0)
			ended, taken, wrong := 0, 0, 0
			want := map[string]string{"destroyed": "abort", "reset by the peer": "reset_received"}[how]
			for _, l := range env.Collect()[0] {
				if !mine[l.Conn] || l.Type != "connection" {
					continue
				}
				ended++
				if l.Error == "" {
					taken++
				}
				if l.PID != nil && int(*l.PID) == destroyer.PID || l.ClosedBy != "" && l.ClosedBy != want {
					if wrong++; wrong <= 3 {
						t.Errorf("want closed_by %s, and another owner than the destroyer: %s", want, l.Raw)
					}
				}
			}
			t.Logf("%d connections ended, %d without the error, %d wrong", ended, taken, wrong)
		})
	}
}

// A process shuts down both directions and then closes, so that the socket shows no
// sign of the close, while other processes dump sockets. They are never named.
func TestStorm_DumpOfShutDownSockets(t *testing.T) {
	env := harness.NewStormEnv(t)
	for i := range 3 {
		env.StartProgram(fmt.Sprintf("dumper-%d", i), 1).DumpForever()
	}
	harness.CheckStorm(t, env, harness.RunStorm(env, harness.StormConnections(t)/5, harness.OpAcceptClose, harness.OpConnectSendShutdown))
}
