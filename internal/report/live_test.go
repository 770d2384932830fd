package report

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

func contentOf(t *testing.T, l *Live) string {
	t.Helper()
	var b bytes.Buffer
	if err := l.WriteContent(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// What a live page shows of a recording is what its report shows, however often it was asked for before. It has no script.
func TestLive_EqualsReport(t *testing.T) {
	l := NewLive()
	if err := l.WriteContent(io.Discard); !errors.Is(err, ErrNoRecords) {
		t.Errorf("without records: %v", err)
	}
	for line := range bytes.Lines([]byte(whole)) {
		l.Take(line)
		contentOf(t, l)
	}
	content := contentOf(t, l)
	if got, want := dataOf(t, content), dataOf(t, pageOf(t, whole)); got != want {
		t.Errorf("the live page has %s, the report %s", got, want)
	}
	tables := func(page string) (all []string) {
		for _, n := range elements(t, page)["td"] {
			all = append(all, textOf(n))
		}
		return all
	}
	if got, want := tables(content), tables(pageOf(t, whole)); !reflect.DeepEqual(got, want) {
		t.Errorf("the live page has %q, the report %q", got, want)
	}
	if found := elements(t, content); len(found["script"]) != 1 || len(found["style"]) != 0 {
		t.Errorf("the content has %d scripts and %d styles", len(found["script"]), len(found["style"]))
	}
}

// short writes the records of a connection that a client opens and closes.
func short(b *bytes.Buffer, at time.Time, n int) {
	const layout = "2006-01-02T15:04:05.000000000Z"
	seq := 4 * n
	line := func(kind, rest string) {
		seq++
		fmt.Fprintf(b, `{"type":"%s","time":"%s","seq":%d,"conn":"%x","netns":1,"local_addr":"10.0.0.1","local_port":%d,"peer_addr":"10.%d.%d.%d","peer_port":443,"role":"client","pid":7,"comm":"w%d",%s}`+"\n",
			kind, at.Format(layout), seq, n+1, 1024+n%60000, n%7, n/7%250, n/1750%250, n%9000, rest)
	}
	line("transition", `"old_state":"CLOSE","new_state":"SYN_SENT"`)
	line("transition", `"old_state":"SYN_SENT","new_state":"ESTABLISHED","in_state_ns":1000`)
	line("transition", `"old_state":"ESTABLISHED","new_state":"TIME_WAIT","in_state_ns":1000`)
	line("connection", `"closed_by":"local","final_state":"TIME_WAIT","duration_ns":2000`)
}

// The charts of a live page have the last twenty minutes, and its sums all. A TIME_WAIT that began before the charts
// is among the sockets at their beginning.
func TestLive_Window(t *testing.T) {
	l := NewLive()
	begin := time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)
	const connections = 3 * 3600
	for n := range connections { // one each second
		var b bytes.Buffer
		short(&b, begin.Add(time.Duration(n)*time.Second), n)
		l.Take(b.Bytes())
	}
	v := l.report.view()
	if v.Ends.Connections != connections {
		t.Errorf("%d connections", v.Ends.Connections)
	}
	s := v.data.Series
	if s.Width != 1 || len(s.Opened) != maxBins-int(leadBins) || int64(s.Start) != begin.Unix()+connections-maxBins+leadBins {
		t.Fatalf("%d bins of %v s from %v on", len(s.Opened), s.Width, s.Start)
	}
	for i, opened := range s.Opened {
		if timeWaits := s.States[len(states)-1][i]; opened != 1 || timeWaits != 60 {
			t.Fatalf("bin %d: %d opened, %d TIME_WAITs", i, opened, timeWaits)
		}
	}
	// The clock is set back by a day: the charts begin again, and forward by a month.
	for i, at := range []time.Time{begin.AddDate(0, 0, -1), begin.AddDate(0, 1, 0), begin.AddDate(0, 1, 0).Add(time.Second)} {
		var b bytes.Buffer
		short(&b, at, connections+i)
		l.Take(b.Bytes())
		s := l.report.view().data.Series
		if n := len(s.Opened); n == 0 || n > maxBins || s.Opened[n-1] != 1 {
			t.Errorf("at %v: %d bins", at, n)
		}
	}
}

// A live page of 120,000 connections takes no more memory than a page of half as many. Some connections never end.
func TestLive_Bounded(t *testing.T) {
	l := NewLive()
	begin := time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)
	memory := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	var after uint64
	const connections = 120_000
	var b bytes.Buffer
	for n := range connections {
		b.Reset()
		short(&b, begin.Add(time.Duration(n)*20*time.Millisecond), n)
		text := b.Bytes()
		if n%5 == 0 { // it stays open
			text = text[:bytes.IndexByte(text, '\n')+1]
		}
		l.Take(text)
		if n == connections/2 {
			after = memory()
		}
	}
	if now := memory(); now > after+8<<20 {
		t.Errorf("%d bytes after a half, %d at the end", after, now)
	}
	if open := len(l.report.lives.open); open > maxLiveOpen {
		t.Errorf("%d open connections are kept", open)
	}
	v := l.report.view()
	if v.Untracked == 0 {
		t.Error("the page does not say that it has not all transitions")
	}
}

// Of alerts, the one that closed first gives way to a new one, critical or not.
func TestLive_OldAlertsGiveWay(t *testing.T) {
	l := NewLive()
	const alerts = maxAlerts + 50
	for n := range alerts {
		for i, phase := range []string{"open", "close"} {
			at := time.Date(2026, 11, 30, 0, n, i, 0, time.UTC).Format(time.RFC3339Nano)
			l.Take(fmt.Appendf(nil, `{"type":"alert","time":"%s","seq":%d,"alert":"a-%d","phase":"%s","kind":"time_wait_storm","severity":"critical"}`+"\n", at, 2*n+i+1, n, phase))
		}
	}
	v := l.report.view()
	if v.AlertsTotal != alerts || len(v.Alerts) != maxAlerts || v.Alerts[maxAlerts-1].ID != fmt.Sprintf("a-%d", alerts-1) || v.AlertsLeft != 50 {
		t.Errorf("%d alerts, %d shown, %d left out, the last is %s", v.AlertsTotal, len(v.Alerts), v.AlertsLeft, v.Alerts[len(v.Alerts)-1].ID)
	}
}

// stuck is a reader that takes nothing until it is released.
type stuck struct{ reading, release chan struct{} }

func (s stuck) Write(b []byte) (int, error) {
	close(s.reading)
	<-s.release
	return len(b), nil
}

// A reader of the content that takes nothing does not make the tracer wait.
func TestLive_SlowReader(t *testing.T) {
	l := NewLive()
	l.Take([]byte(whole))
	s := stuck{make(chan struct{}), make(chan struct{})}
	var readers sync.WaitGroup
	readers.Go(func() {
		if err := l.WriteContent(s); err != nil {
			t.Error(err)
		}
	})
	<-s.reading
	l.Take([]byte(strings.SplitAfter(whole, "\n")[0]))
	contentOf(t, l)
	close(s.release)
	readers.Wait()
}

// The clock is set back by more than the charts have, while a connection is open: the page goes on.
func TestLive_ClockSetBackWithOpenConnections(t *testing.T) {
	l := NewLive()
	begin := time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)
	for i, at := range []time.Time{begin, begin.Add(-time.Hour)} {
		var b bytes.Buffer
		short(&b, at, i)
		l.Take(b.Bytes()[:bytes.IndexByte(b.Bytes(), '\n')+1]) // it stays open
	}
	v := l.report.view()
	s := &v.data.Series
	if n := len(s.Opened); n == 0 || s.Opened[n-1] != 1 || s.States[0][n-1] != 2 {
		t.Errorf("%d bins: %d opened, %d in SYN_SENT", n, s.Opened[n-1], s.States[0][n-1])
	}
}
