package kernel_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// reading is a connection that a worker has accepted from its parent's listener. Data has
// arrived, and no process has read it.
type reading struct {
	env            *harness.Env
	worker, client *harness.Actor
	other          *harness.Actor // has nothing to do with the server
	c, s           *harness.Socket
}

// readerIs makes processes read from a connection, until the client closes it. Then
// reader returns the process that must be named with pid_source read when only reads show
// the owner. If there is none, no process is named with it.
func readerIs(t *testing.T, reader func(r *reading) *harness.Actor) {
	t.Helper()
	env := harness.NewEnv(t)
	env.UseSharedTracers()
	parent, client := env.StartProgram("a-server", 1), env.StartActor("a-client", 1)
	r := &reading{env: env, client: client, worker: parent, other: env.StartActor("other", 1)}
	listener := parent.Listen(harness.At(7000))
	r.c = client.Dial(harness.At(7000))
	r.s = parent.Accept(listener)
	client.Write(r.c, "question")
	want := reader(r)
	if client.Table.Has(r.c) {
		client.Close(r.c)
	}
	if want != nil {
		want.AwaitState(r.s, tcplab.CloseWait)
	}
	env.Finish()
	for i, lines := range env.Collect() {
		env.Tracer = env.Captures[i].Tracer
		if env.Has(probe.ReadHook) && !env.Has(probe.AcceptHook) {
			checkReader(t, lines, want)
		}
	}
}

// checkReader checks who owns the connection when the client's FIN arrives.
func checkReader(t *testing.T, lines []harness.Record, want *harness.Actor) {
	t.Helper()
	seen := 0
	for _, l := range lines {
		if l.Type != "transition" || l.Role != "server" || l.New != "CLOSE_WAIT" {
			continue
		}
		seen++
		switch {
		case want == nil && l.Source == "read":
			t.Errorf("want no owner by read: %s", l.Raw)
		case want != nil && (l.Source != "read" || l.PID == nil || int(*l.PID) != want.PID):
			t.Errorf("want pid %d (%s) and pid_source read: %s", want.PID, want.Name(), l.Raw)
		}
	}
	if seen != 1 {
		t.Errorf("%d transitions to CLOSE_WAIT, want 1", seen)
	}
}

// A process that was given the connection, or has taken it, reads from it. It is an owner
// as long as it has it open, and never after that. A second reader does not replace it.
func TestOwner_OtherProcessReads(t *testing.T) {
	for name, get := range map[string]func(r *reading){
		"by SCM_RIGHTS":  func(r *reading) { r.worker.PassFD(r.s, r.other, false) },
		"by pidfd_getfd": func(r *reading) { r.other.PidfdGet(r.s, r.worker) },
	} {
		for after, then := range map[string]func(r *reading) *harness.Actor{
			"keeps it":  func(r *reading) *harness.Actor { return r.other },
			"closes it": func(r *reading) *harness.Actor { r.other.Close(r.s); return nil },
			"dies":      func(r *reading) *harness.Actor { r.other.Kill(); return nil },
			"keeps it, and the worker reads": func(r *reading) *harness.Actor {
				r.client.Write(r.c, "more")
				r.worker.Read(r.s)
				return r.other
			},
		} {
			t.Run(name+", and "+after, func(t *testing.T) {
				readerIs(t, func(r *reading) *harness.Actor {
					get(r)
					r.other.Read(r.s)
					return then(r)
				})
			})
		}
	}
}

// The worker reads, passes the connection on and closes it. It must not be named any more.
func TestOwner_ReaderPassesOn(t *testing.T) {
	readerIs(t, func(r *reading) *harness.Actor {
		r.worker.Read(r.s)
		r.worker.PassFD(r.s, r.other, true)
		r.client.Write(r.c, "more")
		r.other.Read(r.s)
		return nil
	})
}

// A process that shares the worker's descriptor table reads. It has the socket open like
// the worker, until it exits.
func TestOwner_ReaderSharesTable(t *testing.T) {
	t.Run("alive", func(t *testing.T) {
		readerIs(t, func(r *reading) *harness.Actor {
			sharing := r.worker.Fork("sharing", unix.CLONE_FILES, 0)
			sharing.Read(r.s)
			return sharing
		})
	})
	t.Run("dead", func(t *testing.T) {
		readerIs(t, func(r *reading) *harness.Actor {
			sharing := r.worker.Fork("sharing", unix.CLONE_FILES, 0)
			sharing.Read(r.s)
			sharing.Kill()
			return nil
		})
	})
}

// splice() reads like any other call.
func TestOwner_ReadBySplice(t *testing.T) {
	readerIs(t, func(r *reading) *harness.Actor { r.worker.Splice(r.s); return r.worker })
}

// A thread of an io_uring reads: the process is the owner if the socket is in its
// descriptor table. If the io_uring alone has the socket, no owner is proven.
func TestOwner_UringReads(t *testing.T) {
	for _, mode := range uringModes {
		t.Run(mode.name, func(t *testing.T) {
			readerIs(t, func(r *reading) *harness.Actor {
				r.worker.OpenUring(mode.setup)
				r.worker.UringRead(r.s, mode.flags)
				return r.worker
			})
		})
		t.Run(mode.name+", registered file", func(t *testing.T) {
			readerIs(t, func(r *reading) *harness.Actor {
				r.worker.OpenUring(mode.setup)
				r.worker.Register(r.s)
				r.env.KnownLimits = append(r.env.KnownLimits, func(_ harness.Record, s *harness.Socket) bool { return s == r.s })
				r.worker.UringRead(r.s, mode.flags|harness.UringFixedFile)
				r.client.Close(r.c)
				r.worker.Exit()
				return nil
			})
		})
	}
}
