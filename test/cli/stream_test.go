package cli_test

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// record is the keys of a record that tests check.
type record struct {
	Type, Time   string
	Seq          uint64
	Conn         string
	Netns        uint32
	Family       string
	Mapped       bool
	LocalAddr    string `json:"local_addr"`
	LocalPort    uint16 `json:"local_port"`
	PeerAddr     string `json:"peer_addr"`
	PeerPort     uint16 `json:"peer_port"`
	Role         string
	OldState     string `json:"old_state"`
	NewState     string `json:"new_state"`
	KernelNew    string `json:"kernel_new_state"` // where it differs from NewState
	PID          uint32
	Comm         *string
	Reason       string
	Signal       string
	Seen         uint64
	Filtered     uint64
	LostRingFull uint64 `json:"lost_ring_full"`
	LostRingBusy uint64 `json:"lost_ring_busy"`
	LostReentry  uint64 `json:"lost_reentry"`
	LostQueue    uint64 `json:"lost_queue_full"`
	LostConns    uint64 `json:"lost_connections"` // in loss as well
	LostEnds     uint64 `json:"lost_time_wait_ends"`
	Lost         uint64
	Cause        string
	Kind, Phase  string // of an alert
	Read         uint64
	Dropped      uint64
	Written      uint64
	WrittenBytes uint64 `json:"written_bytes"`
	Fired        uint64
	Entered      uint64
	Missed       uint64
	Other        uint64 `json:"other_protocol"`
	Deferred     uint64
	Connections  uint64
	Updates      uint64
	TimeWaitEnds uint64 `json:"time_wait_ends"`

	line string
}

// kernelNew is the new state as the tracepoint shows it, which is never TIME_WAIT.
func (r *record) kernelNew() string {
	if r.KernelNew != "" {
		return r.KernelNew
	}
	return r.NewState
}

// stream is the records of one run, from start to stop.
type stream struct {
	result  result
	records []record
}

func (s stream) last() record { return s.records[len(s.records)-1] }

func (s stream) of(recordType string) []record {
	var found []record
	for _, r := range s.records {
		if r.Type == recordType {
			found = append(found, r)
		}
	}
	return found
}

var (
	nanoseconds = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z$`)
	firstKeys   = regexp.MustCompile(`^\{"type":"[a-z]+","time":"[^"]+","seq":\d+,`)
)

// parseStream parses NDJSON and checks what is true of every stream that ended in
// order.
func parseStream(t testing.TB, r result) stream {
	t.Helper()
	s := stream{result: r}
	for i, line := range strings.SplitAfter(r.stdout, "\n") {
		if line != "" {
			s.records = append(s.records, parseRecord(t, r, i, line))
		}
	}
	if len(s.records) < 2 || s.records[0].Type != "start" || s.last().Type != "stop" {
		t.Fatalf("want a stream that begins with start and ends with stop\n%v", r)
	}
	for i := range s.records {
		inside := i > 0 && i < len(s.records)-1
		if kind := s.records[i].Type; inside && (kind == "start" || kind == "stop") {
			t.Errorf("line %d is a %s record in the middle of the stream\n%v", i+1, kind, r)
		}
	}
	s.checkAccounts(t)
	return s
}

func parseRecord(t testing.TB, r result, i int, line string) record {
	t.Helper()
	rec := record{line: line}
	switch err := json.Unmarshal([]byte(line), &rec); {
	case err != nil:
		t.Fatalf("line %d is not JSON: %v: %q\n%v", i+1, err, line, r)
	case !strings.HasSuffix(line, "\n"):
		t.Fatalf("line %d has no newline: %q\n%v", i+1, line, r)
	case !utf8.ValidString(line):
		t.Errorf("line %d is not UTF-8: %q\n%v", i+1, line, r)
	case len(line) > 4096:
		t.Errorf("line %d has %d bytes, want at most 4096\n%v", i+1, len(line), r)
	case !firstKeys.MatchString(line):
		t.Errorf("line %d does not begin with type, time and seq: %s\n%v", i+1, line, r)
	case !nanoseconds.MatchString(rec.Time):
		t.Errorf("line %d: time %q is not RFC 3339 in UTC with nine digits\n%v", i+1, rec.Time, r)
	case rec.Seq != uint64(i+1):
		t.Errorf("line %d: seq %d, want %d: there is a gap\n%v", i+1, rec.Seq, i+1, r)
	}
	return rec
}

// checkAccounts checks that the counters of stop add up and agree with the records.
func (s stream) checkAccounts(t testing.TB) {
	t.Helper()
	stop := s.last()
	before := len(s.result.stdout) - len(stop.line)
	for _, sum := range []struct {
		what      string
		got, want uint64
	}{
		{"seen = filtered + lost + deferred + read", stop.Seen,
			stop.Filtered + stop.LostRingFull + stop.LostRingBusy + stop.LostReentry + stop.Deferred + stop.Read},
		{"read = written + dropped + lost_queue_full", stop.Read, stop.Written + stop.Dropped + stop.LostQueue},
		{"fired = entered + missed", stop.Fired, stop.Entered + stop.Missed},
		{"fired = seen + other_protocol", stop.Fired, stop.Seen + stop.Other},
		{"written + time_wait_ends = the transitions that came", stop.Written + stop.TimeWaitEnds, uint64(len(s.of("transition")))},
		{"connections + updates = those that came", stop.Connections + stop.Updates, uint64(len(s.of("connection")))},
		{"written_bytes = the bytes that came before stop", stop.WrittenBytes, uint64(before)},
	} {
		if sum.got != sum.want {
			t.Errorf("the counters of stop do not add up: %s: %d, want %d\n%v", sum.what, sum.got, sum.want, s.result)
		}
	}
}
