package kernel_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// The workers of a prefork server read from their connections and wait; the clients end
// them. Without the accept hook a worker is known from its first read on, so it is the
// owner when the client's FIN arrives. Its parent opened the listener and never is.
func TestOwner_PreforkWorkerReads(t *testing.T) {
	for _, descriptors := range []int{0, 300} {
		t.Run(fmt.Sprintf("descriptors from %d", descriptors), func(t *testing.T) {
			env := harness.NewEnv(t)
			env.UseSharedTracers()
			parent, client := env.ServerAndClient()
			parent.FillDescriptors(descriptors)
			listener := parent.Listen(harness.At(7000))
			workers := parent.Workers(3)
			for i := range 6 {
				worker := workers[i%3]
				c := client.Dial(harness.At(7000))
				s := worker.Accept(listener)
				client.Write(c, "question")
				worker.Read(s)
				client.Close(c)
				worker.AwaitState(s, tcplab.CloseWait)
				worker.Close(s)
			}
			env.Finish()
			for i, lines := range env.Collect() {
				env.Tracer = env.Captures[i].Tracer
				checkReaders(env, workers, lines)
			}
		})
	}
}

// checkReaders checks who owns the connections when the client's FIN arrives.
func checkReaders(env *harness.Env, workers []*harness.Actor, lines []harness.Record) {
	env.T.Helper()
	want := "listener"
	switch {
	case !env.Has(probe.SocketStorage):
		return
	case env.Has(probe.AcceptHook):
		want = "accept"
	case env.Has(probe.ReadHook):
		want = "read"
	}
	seen := 0
	for _, l := range lines {
		if l.Type != "transition" || l.Role != "server" || l.New != "CLOSE_WAIT" {
			continue
		}
		seen++
		isWorker := l.PID != nil && slices.ContainsFunc(workers, func(a *harness.Actor) bool { return a.PID == int(*l.PID) })
		if l.Source != want || isWorker != (want != "listener") {
			env.T.Errorf("want a worker's pid, unless pid_source is listener, and pid_source %s: %s", want, l.Raw)
		}
	}
	if seen != 6 {
		env.T.Errorf("%d connections changed to CLOSE_WAIT, want 6", seen)
	}
}
