package report

import (
	"bytes"
	"io"
	"strings"
	"sync"

	"github.com/tcpshift/tcpshift/internal/recording"
)

// maxLiveOpen bounds the connections of a live report whose transitions are kept until they end: about 1 KiB each.
const maxLiveOpen = 1 << 14

// Live sums up the records of a trace that goes on, for months and in bounded memory. Its tables and sums are those since
// the start; its charts have the last twenty minutes. Its methods may be called from any goroutine.
type Live struct {
	mu         sync.Mutex
	report     *Report
	rec        recording.Record
	records    uint64
	unreadable uint64
}

// NewLive returns a report of nothing so far.
func NewLive() *Live {
	r := newReport()
	r.live, r.axis.sliding, r.alerts.live, r.lives.live, r.lives.limit = true, true, true, true, maxLiveOpen
	r.streams.nextSource()
	return &Live{report: r}
}

// Take takes whole lines of the native schema.
func (l *Live) Take(lines []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range bytes.Lines(lines) {
		if recording.Parse(line, &l.rec) != nil {
			l.unreadable++
			continue
		}
		l.records++
		l.report.add(&l.rec)
	}
}

// WriteContent writes what the live page shows, as HTML without scripts and styles. The page of WriteLivePage takes its
// elements over. While it writes, Take waits for as long as it takes to sum up: some milliseconds.
func (l *Live) WriteContent(w io.Writer) error {
	v := l.view()
	if v == nil {
		return ErrNoRecords
	}
	return v.write(w, parts{})
}

// view returns what is to be shown, which shares nothing with the report; nil: there are no records.
func (l *Live) view() *view {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.records == 0 {
		return nil
	}
	l.report.sources = []sourceSummary{{"this trace", recording.Summary{Records: l.records, Lines: l.records + l.unreadable, Unreadable: l.unreadable}}}
	return l.report.view()
}

// WriteLivePage writes the page that shows what WriteContent writes, which it asks for each second at the path content, with
// what is in the fragment of its address in the header named tokenHeader. policy is the Content-Security-Policy that it needs.
func WriteLivePage(w io.Writer, content, tokenHeader string) (policy string, err error) {
	p := newParts(liveScript)
	p.Policy = strings.Replace(p.Policy, "; base-uri", "; connect-src 'self'; base-uri", 1)
	err = livePage.Execute(w, struct {
		parts
		Content, TokenHeader string
	}{p, content, tokenHeader})
	return p.Policy + "; frame-ancestors 'none'", err
}
