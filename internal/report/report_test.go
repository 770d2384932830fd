package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/recording"
)

const (
	startLine = `{"type":"start","time":"2026-11-22T12:23:20.000000000Z","seq":1,"version":"devel","schema":"1.0","host":"vm","boot_id":"2e8ec3c7","kernel":"6.18","arch":"amd64","pid":1,"features":{"socket_cookie":true,"accept_hook":"not permitted"}}`
	synLine   = `{"type":"transition","time":"2026-11-22T12:23:24.112473420Z","seq":2,"conn":"2b","netns":1,"local_addr":"127.0.0.1","peer_addr":"127.0.0.1","peer_port":9,"role":"client","old_state":"CLOSE","new_state":"SYN_SENT","pid":7,"comm":"curl"}`
	closeLine = `{"type":"transition","time":"2026-11-22T12:23:25.112530594Z","seq":3,"conn":"2b","netns":1,"local_addr":"127.0.0.1","local_port":4538,"peer_addr":"127.0.0.1","peer_port":9,"role":"client","old_state":"SYN_SENT","new_state":"CLOSE","in_state_ns":1000057174,"pid":7,"comm":"curl","error":"ECONNREFUSED"}`
	endLine   = `{"type":"connection","time":"2026-11-22T12:23:25.112530594Z","seq":4,"conn":"2b","netns":1,"local_addr":"127.0.0.1","local_port":4538,"peer_addr":"127.0.0.1","peer_port":9,"role":"client","pid":7,"comm":"curl","opened":"2026-11-22T12:23:24.112473420Z","duration_ns":1000057174,"sent_bytes":5,"received_bytes":7,"retransmits":2,"final_state":"CLOSE","closed_by":"refused","error":"ECONNREFUSED"}`
	openLine  = `{"type":"transition","time":"2026-11-22T12:23:26.000000000Z","seq":5,"conn":"2c","netns":1,"local_addr":"127.0.0.1","local_port":80,"peer_addr":"127.0.0.1","peer_port":9999,"role":"server","old_state":"ESTABLISHED","new_state":"CLOSE_WAIT","in_state_ns":5,"pid":8,"comm":"httpd"}`
	lossLine  = `{"type":"loss","time":"2026-11-22T12:23:27.000000000Z","seq":6,"lost":3505,"cause":"ring_full","stage":"kernel"}`
	alertLine = `{"type":"alert","time":"2026-11-22T12:23:28.000000000Z","seq":7,"kind":"time_wait_storm","phase":"open","alert":"a-1","severity":"critical","service":"curl","peer_addr":"10.9.0.2","peer_port":80,"occupancy":210,"capacity":300,"capacity_kind":"ephemeral_ports","confidence":"full","cause":"ports run out","advice":"reuse connections"}`
	stopLine  = `{"type":"stop","time":"2026-11-22T12:23:30.000000000Z","seq":8,"reason":"signal","seen":3510,"filtered":1,"lost_ring_full":3505}`
)

func lines(l ...string) string { return strings.Join(l, "\n") + "\n" }

var whole = lines(startLine, synLine, closeLine, endLine, openLine, lossLine, alertLine, stopLine)

func read(t testing.TB, recordings ...string) *Report {
	t.Helper()
	var sources []Source
	for i, r := range recordings {
		sources = append(sources, Source{fmt.Sprintf("file %d", i), strings.NewReader(r)})
	}
	r, err := Read(sources)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A recording is summed up: what ended and how, what is open, what was lost and when.
func TestRead_Sums(t *testing.T) {
	v := read(t, whole).view()
	if v.Title != "vm" || v.From != "2026-11-22 12:23:20" || v.To != "2026-11-22 12:23:30" || v.Span != "10 s" {
		t.Errorf("%s from %s to %s, %s", v.Title, v.From, v.To, v.Span)
	}
	if v.Ends.Connections != 1 || v.Failed != 1 || v.Ends.Retransmits != 2 || v.Critical != 1 || len(v.Ways) != 1 || v.Ways[0] != (wayView{"refused", 1, true}) {
		t.Errorf("ended %+v, failed %d, critical %d, %+v", v.Ends, v.Failed, v.Critical, v.Ways)
	}
	if len(v.Gaps) != 1 || v.Gaps[0] != (gapView{"12:23:27.000", "vm", "3,505 lost", "ring_full, at the kernel"}) {
		t.Errorf("gaps: %+v", v.Gaps)
	}
	if h := v.Hosts[0]; h.Seen != 3510 || h.Lost != 3505 || h.Ends != "2026-11-22 12:23:30 (signal)" || len(h.Off) != 1 || h.Off[0] != "accept_hook: not permitted" {
		t.Errorf("%+v", h)
	}
	services := v.Tables[0].Rows
	if len(services) != 2 || services[0].Text != "curl" || services[0].HowText != "1 refused" || services[1].Text != "httpd" || services[1].CloseWaits != 1 {
		t.Errorf("services: %+v", services)
	}
	if a := v.Alerts[0]; a.Peak != "210 of 300 ephemeral ports" || a.About != "10.9.0.2:80" || a.End != "still open at the end" {
		t.Errorf("%+v", a)
	}
	s := v.data.Series
	if len(s.Opened) != 1001 || s.Width != 0.01 || sum(s.Opened) != 1 || sum(s.Lost) != 3505 || sum(s.Gaps) != 0 {
		t.Errorf("%d bins of %v s, %d opened, %d lost", len(s.Opened), s.Width, sum(s.Opened), sum(s.Lost))
	}
	synSent, closeWait := s.States[stateIndex("SYN_SENT")], s.States[stateIndex("CLOSE_WAIT")]
	if synSent[400] != 0 || synSent[411] != 1 || synSent[510] != 1 || synSent[511] != 0 || closeWait[599] != 0 || closeWait[1000] != 1 {
		t.Errorf("SYN_SENT %v, CLOSE_WAIT %v", synSent[400:520], closeWait[590:])
	}
	if c := v.data.Connections; len(c) != 2 || c[0].Conn != "2b" || len(c[0].Steps) != 2 || c[0].End != "refused" || !c[1].Open || c[1].State != "CLOSE_WAIT" {
		t.Errorf("connections: %+v", c)
	}
}

func sum[T int64 | uint64](list []T) (n T) {
	for _, v := range list {
		n += v
	}
	return n
}

// Files are read in the order of time, whatever their order on the command line is.
func TestRead_RotatedFiles(t *testing.T) {
	v := read(t, lines(openLine, lossLine, alertLine, stopLine), lines(startLine, synLine, closeLine, endLine)).view()
	if v.Ends.Connections != 1 || v.Title != "vm" || len(v.Hosts) != 1 || len(v.Gaps) != 1 || v.data.Connections[0].Service != "curl" {
		t.Errorf("%+v", v)
	}
}

// A gap in the numbers of the records is shown at its time. A record that comes twice counts once.
func TestRead_GapsAndRepeats(t *testing.T) {
	r := read(t, lines(startLine, synLine, endLine, synLine, endLine, stopLine))
	v := r.view()
	if v.Ends.Connections != 1 || v.Repeated != 2 {
		t.Errorf("%d connections, %d repeated", v.Ends.Connections, v.Repeated)
	}
	if len(v.Gaps) != 2 || v.Gaps[0].Time != "12:23:25.112" || v.Gaps[0].What != "1 missing" || v.Gaps[1].What != "3 missing" {
		t.Errorf("gaps: %+v", v.Gaps)
	}
	if got := sum(v.data.Series.Gaps); got != 4 {
		t.Errorf("%d records are missing on the time axis", got)
	}
	if h := v.Hosts[0]; h.Ends != "2026-11-22 12:23:30 (signal)" {
		t.Errorf("%+v", h)
	}
}

// Two files of the same run, and a file of another one, are streams with numbers of their own.
func TestRead_OutputsWithNumbersOfTheirOwn(t *testing.T) {
	other := strings.ReplaceAll(lines(startLine, endLine), `"2b"`, `"2d"`)
	later := strings.NewReplacer("12:23:", "12:53:", `"2b"`, `"2e"`, `"seq":4`, `"seq":2`).Replace(lines(startLine, endLine))
	v := read(t, lines(startLine, synLine, closeLine, endLine), strings.Replace(other, `"seq":4`, `"seq":2`, 1), later).view()
	if v.Ends.Connections != 3 || v.Repeated != 0 || len(v.Gaps) != 0 {
		t.Errorf("%d connections, %d repeated, gaps %+v", v.Ends.Connections, v.Repeated, v.Gaps)
	}
}

// Each end of a TIME_WAIT that the recording has counts; without them a TIME_WAIT lasts for a minute.
func TestRead_TimeWaits(t *testing.T) {
	begin := `{"type":"transition","time":"2026-11-22T12:23:30.000000000Z","seq":2,"conn":"2b","role":"client","old_state":"FIN_WAIT2","new_state":"TIME_WAIT","in_state_ns":5}`
	ended := `{"type":"transition","time":"2026-11-22T12:23:40.000000000Z","seq":3,"conn":"2b","role":"client","old_state":"TIME_WAIT","new_state":"CLOSE","time_wait_end":"early","in_state_ns":10000000000}`
	last := `{"type":"stop","time":"2026-11-22T12:25:30.000000000Z","seq":4,"reason":"signal"}`
	for name, c := range map[string]struct {
		recording string
		want      int64 // seconds
	}{
		"known": {lines(startLine, begin, ended, last), 10}, "not known": {lines(startLine, begin, last), 60},
	} {
		s := read(t, c.recording).view().data.Series
		if got := float64(sum(s.States[stateIndex(timeWait)])) * s.Width; got != float64(c.want) {
			t.Errorf("%s: the TIME_WAIT lasts %v s, want %d", name, got, c.want)
		}
	}
}

// A recording without records is refused in one line that says why.
func TestRead_Nothing(t *testing.T) {
	for text, want := range map[string]string{
		"":                                   "x has no record of the native schema: it is empty",
		"\n\n":                               "x has no record of the native schema: it is empty",
		`{"type":"st`:                        "x has no record of the native schema: its only line is not whole",
		"hello\n":                            "x has no record of the native schema: line 1: it is not JSON",
		`{"@timestamp":"2026-11-22"}` + "\n": "x has no record of the native schema: line 1: it has no type: a recording is in the native schema",
	} {
		_, err := Read([]Source{{"x", strings.NewReader(text)}})
		if !errors.Is(err, ErrNoRecords) || err.Error() != want {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

// storm generates the records of connections, four each, without keeping them.
type storm struct {
	connections, next int
	rest              []byte
}

func (s *storm) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		if s.next == s.connections {
			return 0, io.EOF
		}
		at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC).Add(time.Duration(s.next) * 100 * time.Microsecond)
		when := func(d time.Duration) string { return at.Add(d).Format("2006-01-02T15:04:05.000000000Z") }
		id := fmt.Sprintf(`"conn":"%x","netns":1,"local_addr":"10.%d.0.1","local_port":%d,"peer_addr":"10.0.%d.%d","peer_port":443,"role":"client","pid":%d,"comm":"worker %d"`,
			s.next+1, s.next%200, 1024+s.next%60000, s.next%250, s.next/250%250, s.next%30000+1, s.next%7000)
		s.rest = fmt.Appendf(s.rest, `{"type":"transition","time":"%s","seq":%d,%s,"old_state":"CLOSE","new_state":"SYN_SENT"}`+"\n", when(0), 4*s.next+1, id)
		s.rest = fmt.Appendf(s.rest, `{"type":"transition","time":"%s","seq":%d,%s,"old_state":"SYN_SENT","new_state":"ESTABLISHED","in_state_ns":1000}`+"\n", when(time.Microsecond), 4*s.next+2, id)
		s.rest = fmt.Appendf(s.rest, `{"type":"transition","time":"%s","seq":%d,%s,"old_state":"ESTABLISHED","new_state":"CLOSE","in_state_ns":1000}`+"\n", when(time.Millisecond), 4*s.next+3, id)
		s.rest = fmt.Appendf(s.rest, `{"type":"connection","time":"%s","seq":%d,%s,"opened":"%s","duration_ns":1000000,"sent_bytes":%d,"final_state":"CLOSE","closed_by":"reset_sent"}`+"\n", when(time.Millisecond), 4*s.next+4, id, when(0), s.next)
		s.next++
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// The memory of a report, and the size of its page, do not grow with the recording. What the page leaves out is counted.
func TestRead_Bounded(t *testing.T) {
	const connections = 100_000
	r, err := Read([]Source{{"storm", &storm{connections: connections}}})
	if err != nil {
		t.Fatal(err)
	}
	v := r.view()
	if v.Ends.Connections != connections || v.Failed != connections || v.Shown != maxPicked || v.Left != connections-maxPicked || v.Untracked != 0 {
		t.Errorf("%d connections, %d failed, %d shown, %d left out, %d untracked", v.Ends.Connections, v.Failed, v.Shown, v.Left, v.Untracked)
	}
	for _, table := range v.Tables[:2] {
		var sum uint64
		for _, row := range table.Rows {
			sum += row.Connections
		}
		if sum != connections || len(table.Rows) != maxRows+1 {
			t.Errorf("the %d rows of %s have %d connections", len(table.Rows), table.Title, sum)
		}
	}
	if n := len(v.data.Series.Opened); n > maxBins || sum(v.data.Series.Opened) != connections {
		t.Errorf("%d bins with %d connections", n, sum(v.data.Series.Opened))
	}
	var page bytes.Buffer
	if err := r.WritePage(&page); err != nil {
		t.Fatal(err)
	}
	if page.Len() > 1<<20 {
		t.Errorf("the page has %d bytes", page.Len())
	}
	page = bytes.Buffer{}
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if m.HeapAlloc > 24<<20 {
		t.Errorf("the report takes %d MiB", m.HeapAlloc>>20)
	}
	runtime.KeepAlive(r)
}

// Sums over the time axis do not depend on how often it became coarser, nor on the order of the records.
func TestAxis_Coarser(t *testing.T) {
	base := recording.Time(time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC).UnixNano())
	for name, step := range map[string]time.Duration{
		"milliseconds": time.Millisecond, "seconds": time.Second, "hours": time.Hour, "weeks": 7 * 24 * time.Hour, "back": -time.Minute,
	} {
		var a axis
		const n = 3000
		for i := range n {
			at := base + recording.Time(i)*recording.Time(step)
			a.show(at)
			a.at(at).openings++
		}
		s := a.series(true)
		if len(s.Opened) > maxBins || sum(s.Opened) != n {
			t.Errorf("%s: %d bins with %d of %d", name, len(s.Opened), sum(s.Opened), n)
		}
		if first := float64(min(base, base+recording.Time(n-1)*recording.Time(step))) / 1e9; s.Start > first || s.Start+s.Width <= first-1e-6 {
			t.Errorf("%s: begins at %v, the first record is at %v", name, s.Start, first)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(whole))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Read([]Source{{"fuzz", bytes.NewReader(b)}})
		if err != nil {
			return
		}
		var page bytes.Buffer
		if err := r.WritePage(&page); err != nil {
			t.Fatal(err)
		}
		if !json.Valid([]byte(dataOf(t, page.String()))) {
			t.Error("the data is not JSON")
		}
	})
}
