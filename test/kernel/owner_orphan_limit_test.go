package kernel_test

import (
	"bytes"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/kernelmatrix/guest"
)

// The host has too many orphans, so close() ends the connection at once instead of waiting
// for the acknowledgment of its FIN (tcp_check_oom()). The process that closes the socket
// is its owner at this end too. The limit is one for the whole host, so only a guest
// lowers it.
func TestOwner_TooManyOrphans(t *testing.T) {
	if os.Args[0] != guest.TestBinary {
		t.Skip("net.ipv4.tcp_max_orphans would reset connections of the whole host")
	}
	for name, shutDown := range map[string]bool{"in ESTABLISHED": false, "in FIN_WAIT1": true} {
		t.Run(name, func(t *testing.T) {
			env := harness.NewEnv(t)
			env.UseSharedTracers()
			server, client := env.ServerAndClient()
			listener := server.Listen(harness.At(7000))
			c := client.Dial(harness.At(7000))
			s := server.Accept(listener)
			server.DropIncoming(s)
			if shutDown {
				client.Shutdown(c, unix.SHUT_WR)
			}
			forbidOrphans(t, func() { client.Close(c) })
			server.AllowIncoming(s)
			server.Close(s)
			wantOrphanLimit(t, env, client, c, env.Finish())
		})
	}
}

// wantOrphanLimit checks that the socket went from FIN_WAIT1 to CLOSE, with its owner on a
// kernel where the tracer knows it.
func wantOrphanLimit(t *testing.T, env *harness.Env, owner *harness.Actor, s *harness.Socket, lines []harness.Record) {
	t.Helper()
	for _, l := range lines {
		if l.Type != "transition" || l.LocalPort != s.Local.Port() || l.Old != "FIN_WAIT1" || l.New != "CLOSE" {
			continue
		}
		if env.Has(probe.SocketStorage) && (l.PID == nil || int(*l.PID) != owner.PID || l.Source != "task") {
			t.Errorf("the owner is not process %d with pid_source task: %s", owner.PID, l.Raw)
		}
		return
	}
	t.Error("the test is wrong: no transition from FIN_WAIT1 to CLOSE")
}

// forbidOrphans runs f while the kernel allows no orphans.
func forbidOrphans(t *testing.T, f func()) {
	t.Helper()
	const limit = "/proc/sys/net/ipv4/tcp_max_orphans"
	before, err := os.ReadFile(limit)
	if err == nil {
		err = os.WriteFile(limit, []byte("-1"), 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.WriteFile(limit, bytes.TrimSpace(before), 0); err != nil {
			t.Error(err)
		}
	}()
	f()
}
