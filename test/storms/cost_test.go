package storms_test

import (
	"bufio"
	"bytes"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/test/lab"
)

// spent is the CPU time of a tracer that sees so many connections, both ends of each.
func spent(t *testing.T, connections int, args ...string) time.Duration {
	t.Helper()
	n := lab.NewNetns(t)
	cmd := exec.Command(program, args...)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReaderSize(out, 1<<20)
	if _, err := lines.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	var last tail
	go func() {
		defer close(read)
		_, _ = lines.WriteTo(&last)
	}()
	if connections > 0 {
		lab.Storm(n, lab.StormConfig{Connections: connections})
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	<-read
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%v: %s", args, last.end[bytes.LastIndex(last.end, []byte(`"seen"`)):])
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}

// tail keeps the end of what is written.
type tail struct{ end []byte }

func (w *tail) Write(p []byte) (int, error) {
	const enough = 1000
	w.end = append(w.end, p[max(0, len(p)-enough):]...)
	w.end = w.end[max(0, len(w.end)-enough):]
	return len(p), nil
}

func TestAlertsAloneCostASmallPartOfATrace(t *testing.T) {
	lab.RequireRoot(t)
	const connections = 60_000
	trace := spent(t, connections, "trace") - spent(t, 0, "trace")
	alerts := spent(t, connections, "alerts") - spent(t, 0, "alerts")
	t.Logf("%d connections: a trace takes %v of CPU time, alerts alone %v: %.0f %%", connections, trace, alerts,
		100*alerts.Seconds()/trace.Seconds())
	// On a busy machine a trace loses transitions, and costs the less.
	if 4*alerts > 3*trace {
		t.Errorf("alerts take %v, a trace %v", alerts, trace)
	}
}
