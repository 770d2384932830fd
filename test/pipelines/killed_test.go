package pipelines_test

import (
	"os"
	"regexp"
	"syscall"
	"testing"
	"time"
)

// isCount matches the records with numbers of one output.
var isCount = regexp.MustCompile(`^\{"type":"(stats|stop)"`)

// rsyslog is killed twice while records come, and started again. No record is missing.
func TestRsyslog_Killed(t *testing.T) {
	needs(t, "rsyslogd")
	testRestarted(openExample(t, "rsyslog-tcp.conf"), "rsyslogd", syscall.SIGKILL)
}

// syslog-ng is ended twice with SIGTERM, and started again. No record is missing. Killed, it loses
// what it has read and not written.
func TestSyslogNG_Restarted(t *testing.T) {
	needs(t, "syslog-ng")
	testRestarted(openExample(t, "syslog-ng.conf"), "syslog-ng -F", syscall.SIGTERM)
}

// connectPause is the time between two connections of testRestarted. What they make in the longest wait fits into
// the queues of the examples: a consumer that is slower than connections without a pause would lose records, which
// tcpshift counts.
const connectPause = time.Millisecond

// testRestarted makes connections all the time, and ends the consumer in the middle with a signal. Each
// record is stored at least once.
func testRestarted(e *example, consumer string, signal syscall.Signal) {
	e.t.Helper()
	freshFiles(e.t)
	running := e.start(e.command(consumer))
	e.trace()
	end := e.connectAlways()
	for range 2 {
		e.awaitMore()
		running.end(signal)
		written := len(e.want())
		e.await("records while the consumer is gone", func() bool { return len(e.want()) > written+200 })
		running = e.start(e.command(consumer))
		e.awaitMore()
	}
	end()
	want := e.stop()
	missing := func() []string { return missingLines(want, storedLines()) }
	for began := time.Now(); len(missing()) > 0 && time.Since(began) < waitLimit/4; time.Sleep(100 * time.Millisecond) {
	}
	if lines := missing(); len(lines) > 0 {
		stored := storedLines()
		e.t.Errorf("%d of %d records are missing, the first is %s\nthe last one stored is %s", len(lines), len(want), lines[0], stored[len(stored)-1])
	}
	e.t.Logf("%d records, %d lines stored", len(want), len(storedLines()))
}

// connectAlways makes connections until end is called.
func (e *example) connectAlways() (end func()) {
	e.t.Helper()
	ending, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-ending:
				return
			case <-time.After(connectPause):
				if err := connectOnce(); err != nil {
					e.t.Error(err)
					return
				}
			}
		}
	}()
	return func() {
		close(ending)
		<-ended
	}
}

// missingLines returns the wanted lines that are not stored, without the counts, which each output has of its own.
func missingLines(want, stored []string) (missing []string) {
	have := make(map[string]bool, len(stored))
	for _, line := range stored {
		have[line] = true
	}
	for _, line := range want {
		if !isCount.MatchString(line) && !have[line] {
			missing = append(missing, line)
		}
	}
	return missing
}

// awaitMore waits until the consumer has stored 50,000 bytes more.
func (e *example) awaitMore() {
	e.t.Helper()
	size := func() int64 {
		info, err := os.Stat(collected)
		if err != nil {
			return 0
		}
		return info.Size()
	}
	before := size()
	e.await("further records in the consumer", func() bool { return size() > before+50_000 })
}
