package detection_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// spent returns the CPU time of a tracer during a storm of connections with both ends on
// this host; with 0 connections, in a second without a storm.
func spent(t *testing.T, connections int, args ...string) (took time.Duration, c counted) {
	t.Helper()
	n := tcplab.NewNetns(t)
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
		tcplab.Storm(n, tcplab.StormConfig{Connections: connections})
	} else {
		time.Sleep(time.Second) // the tracer reads the sockets of the host first
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	<-read
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	records := bytes.Split(bytes.TrimSpace(last.end), []byte("\n"))
	stop := records[len(records)-1]
	if at := bytes.Index(stop, []byte(`{"type":"stop"`)); at < 0 || json.Unmarshal(stop[at:], &c) != nil {
		t.Fatalf("the last record is not stop: %s", stop)
	}
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), c
}

// counted is the counters of a stop record.
type counted struct{ Seen, Read uint64 }

// tail keeps the last 1,000 bytes that are written to it.
type tail struct{ end []byte }

// Write implements io.Writer.
func (w *tail) Write(p []byte) (int, error) {
	const enough = 1000
	w.end = append(w.end, p[max(0, len(p)-enough):]...)
	w.end = w.end[max(0, len(w.end)-enough):]
	return len(p), nil
}

// With alerts only, the kernel emits four of the ten transitions of a connection whose
// two ends are on this host. CPU time depends on other load and is only logged. Each
// run has a namespace of its own, so that it does not find the sockets of another run.
// The trace has room for all records, because a lost record would cost no time.
func TestAlert_KernelEmitsFewerTransitions(t *testing.T) {
	tcplab.RequireRoot(t)
	const connections = 60_000
	per := func(connections int, args ...string) (took time.Duration, c counted) {
		t.Run(args[0], func(t *testing.T) { took, c = spent(t, connections, args...) })
		return took, c
	}
	roomy := []string{"trace", "--queue-size", "512MiB", "--buffer-size", "64MiB"}
	before, none := per(0, roomy...)
	trace, _ := per(connections, roomy...)
	base, _ := per(0, "alerts")
	alerts, counts := per(connections, "alerts")
	t.Logf("%d connections: a trace takes %v of CPU time, alerts alone %v", connections, trace-before, alerts-base)
	if none.Seen > connections { // transitions of other tests
		t.Skip("this host is not idle enough to count")
	}
	if got := float64(counts.Read) / float64(counts.Seen); got > 0.45 || counts.Read == 0 {
		t.Errorf("the kernel emitted %d of %d transitions, want 4 of 10", counts.Read, counts.Seen)
	}
}
