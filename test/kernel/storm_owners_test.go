package kernel_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/kernel/harness"
)

// All clients are the client process's and all children and listeners the server's.
func TestStorm_OwnersOfBothSides(t *testing.T) {
	for _, without := range slices.Backward(harness.Variants()) { // the other storms go on with the last one
		t.Run(fmt.Sprintf("without %v", without), func(t *testing.T) {
			env := harness.NewStormEnv(t, without...)
			harness.CheckStorm(t, env, harness.RunStorm(env, harness.StormConnections(t), harness.OpAccept, harness.OpConnect))
		})
	}
}

// lsof -p in a loop beside a process that opens and closes connections: it never has
// any of them in its table of descriptors.
func TestStorm_ProcFDReader(t *testing.T) {
	env := harness.NewStormEnv(t)
	st := &harness.Storm{Server: env.StartProgram("storm-server", 1), Client: env.StartProgram("storm-client", 1)}
	reader := env.StartProgram("reader", 1)
	listener := st.Server.Listen(harness.Anywhere(7000))
	reads, writes := st.Credits()
	connections := harness.Scaled(t, 5000, 300)
	fd := st.Client.Must(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM, 0) // the lowest free number
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
	// Which of the two closes is chance; of what the reader closed nobody is the owner.
	all, known, wrong, named := st.Tally(env, env.Collect()[0])
	t.Logf("%d transitions, %d with an owner, %d wrong%s", all, known, wrong, named)
}

// The kernel sets the error of a socket that is reset or destroyed before its state,
// and between the two it may have much to throw away; meanwhile a process that polls
// for the error takes it off the socket. Without it the end must not look like one
// that somebody brought about under the lock.
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
				client.Must(harness.OpFill, client.FD(c))
				poll := client.Threads[1].Order(harness.OpTakeError)
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
						t.Errorf("want %s, and not by the destroyer: %s", want, l.Raw)
					}
				}
			}
			t.Logf("%d ends, of which %d without the error: %d wrong", ended, taken, wrong)
		})
	}
}

// A process shuts both sides down, so that nothing of a close is to be seen on the
// socket any more, and closes it, while others look at it.
func TestStorm_DumpOfShutDownSockets(t *testing.T) {
	env := harness.NewStormEnv(t)
	for i := range 3 {
		env.StartProgram(fmt.Sprintf("dumper-%d", i), 1).DumpForever()
	}
	harness.CheckStorm(t, env, harness.RunStorm(env, harness.StormConnections(t)/5, harness.OpHangUp, harness.OpPushShutdown))
}
