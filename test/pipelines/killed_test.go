package pipelines_test

import (
	"os"
	"strings"
	"testing"
	"time"
)

// rsyslog is killed twice while records come, and started again. No record is missing.
func TestRsyslog_Killed(t *testing.T) {
	needs(t, "rsyslogd")
	testKilled(openExample(t, "rsyslog-tcp.conf"), "rsyslogd")
}

// So is syslog-ng.
func TestSyslogNG_Killed(t *testing.T) {
	needs(t, "syslog-ng")
	testKilled(openExample(t, "syslog-ng.conf"), "syslog-ng -F")
}

// testKilled makes connections without a pause, and kills the consumer in the middle. Each record is stored
// at least once, or tcpshift has counted it as lost.
func testKilled(e *example, consumer string) {
	e.t.Helper()
	freshFiles(e.t)
	running := e.start(e.command(consumer))
	e.trace()
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-end:
				return
			default:
				if err := connectOnce(); err != nil {
					e.t.Error(err)
					return
				}
			}
		}
	}()
	for range 2 {
		e.awaitMore()
		running.kill()
		written := len(e.want())
		e.await("records while the consumer is gone", func() bool { return len(e.want()) > written+200 })
		running = e.start(e.command(consumer))
		e.awaitMore()
	}
	close(end)
	<-ended
	want := e.stop()
	if stop := want[len(want)-1]; !strings.Contains(stop, `"lost_queue_full":0,`) {
		e.t.Errorf("the consumer was not gone for long, but records were lost: %s", stop)
	}
	missing := func() []string {
		stored := make(map[string]bool)
		for _, line := range storedLines() {
			stored[withoutOwnTime(line)] = true
		}
		var lines []string
		for _, line := range want {
			if !stored[withoutOwnTime(line)] {
				lines = append(lines, line)
			}
		}
		return lines
	}
	for began := time.Now(); len(missing()) > 0 && time.Since(began) < waitLimit/4; time.Sleep(100 * time.Millisecond) {
	}
	if lines := missing(); len(lines) > 0 {
		e.t.Errorf("%d of %d records are missing, the first is %s", len(lines), len(want), lines[0])
	}
	e.t.Logf("%d records, %d lines stored", len(want), len(storedLines()))
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
