package trace

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/output"
)

// Records that were encoded before a failure are written, and no stop follows.
func TestFailure_EncodedRecordsWritten(t *testing.T) {
	short := []byte{1, 2, 3}
	for _, tt := range []struct {
		name   string
		source fakeSource
		want   []string
	}{
		{"of reading", fakeSource{turns: [][][]byte{samples(3)}, readErr: errBroken, readErrAt: 1}, numbered(3)},
		{"of reading later", fakeSource{turns: [][][]byte{samples(1), samples(2)[1:], samples(3)[2:]}, readErr: errBroken, readErrAt: 3}, numbered(3)},
		{"of counting", fakeSource{turns: [][][]byte{samples(3)}, countersErr: errBroken}, numbered(3)},
		{"of decoding", fakeSource{turns: [][][]byte{append(samples(3), short, sample(4))}}, numbered(3)},
		{"of decoding what is left in the ring", fakeSource{left: append(samples(3), short, sample(4))}, numbered(3)},
		{"of reading what is left in the ring", fakeSource{left: samples(3), readErr: errBroken, readErrAt: 2}, numbered(3)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := run(t, func(stop func()) (Config, *fakeSource, *fakeSink) {
				tt.source.whenIdle = stop
				return Config{}, &tt.source, &fakeSink{}
			})
			if got.err == nil || !slices.Equal(conns(got.lines), tt.want) {
				t.Errorf("the error is %v and the transitions are %v, want one and %v", got.err, conns(got.lines), tt.want)
			}
			if n := len(ofType(got.lines, "stop")); n != 0 {
				t.Error("stop is written, want none after a failure")
			}
		})
	}
}

// A failure to detach is returned, and the stream ends with the remaining events and
// stop.
func TestFailure_Detach(t *testing.T) {
	got := run(t, func(stop func()) (Config, *fakeSource, *fakeSink) {
		source := &fakeSource{turns: [][][]byte{samples(2)}, left: samples(3)[2:], detachErr: errBroken, whenIdle: stop}
		return Config{StatsInterval: time.Hour}, source, &fakeSink{}
	})
	if !errors.Is(got.err, errBroken) {
		t.Errorf("got the error %v, want %v", got.err, errBroken)
	}
	want := []string{"start", "transition", "transition", "transition", "stats", "stop"}
	if types := typesOf(got.lines); !slices.Equal(types, want) {
		t.Errorf("got %v, want %v", types, want)
	}
	if end := last(t, got.lines); end.Reason != "signal" || end.Read != 3 {
		t.Errorf("the last line is %+v, want stop for the signal, with 3 read", end)
	}
}

// A reader that went away hides no other failure.
func TestFailure_NotHiddenByReaderGone(t *testing.T) {
	for _, tt := range []struct {
		name   string
		source fakeSource
		errAt  int
	}{
		{"of detaching, found out by the last write", fakeSource{detachErr: errBroken}, 2},
		{"of reading, found out by the write of what was there", fakeSource{turns: [][][]byte{samples(1)}, readErr: errBroken, readErrAt: 1}, 2},
	} {
		got := run(t, func(stop func()) (Config, *fakeSource, *fakeSink) {
			tt.source.whenIdle = stop
			return Config{}, &tt.source, &fakeSink{err: output.ErrReaderGone, errAt: tt.errAt}
		})
		if !errors.Is(got.err, errBroken) || errors.Is(got.err, output.ErrReaderGone) {
			t.Errorf("%s: got the error %v, want %v alone", tt.name, got.err, errBroken)
		}
	}
}

// Nothing is written after a write that failed.
func TestFailure_NoWriteAfterwards(t *testing.T) {
	sink := &fakeSink{err: errBroken, errAt: 2}
	got := run(t, func(stop func()) (Config, *fakeSource, *fakeSink) {
		return Config{}, &fakeSource{turns: [][][]byte{samples(3)}, whenIdle: stop}, sink
	})
	if !errors.Is(got.err, errBroken) || sink.writes != 2 {
		t.Errorf("the error is %v after %d writes, want %v after 2", got.err, sink.writes, errBroken)
	}
}

// A reader that goes away ends the stream without an error, whatever finds it.
func TestReaderGone_NoError(t *testing.T) {
	for _, tt := range []struct {
		name string
		sink fakeSink
	}{
		{"found by the first write", fakeSink{err: output.ErrReaderGone, errAt: 1}},
		{"found by a later write", fakeSink{err: output.ErrReaderGone, errAt: 2}},
		{"found by the write of stop", fakeSink{err: output.ErrReaderGone, errAt: 3}},
		{"found without a write", fakeSink{readerGone: true}},
		{"found by a write, wrapped", fakeSink{err: fmt.Errorf("write: %w", output.ErrReaderGone), errAt: 2}},
	} {
		got := run(t, func(stop func()) (Config, *fakeSource, *fakeSink) {
			return Config{}, &fakeSource{turns: [][][]byte{samples(1)}, whenIdle: stop}, &tt.sink
		})
		if got.err != nil {
			t.Errorf("%s: got the error %v, want none", tt.name, got.err)
		}
		if n := len(ofType(got.lines, "stop")); n != 0 {
			t.Errorf("%s: stop is written, want nothing more for a reader that is gone", tt.name)
		}
	}
}

// Run returns the error of what failed.
func TestFailure_Returned(t *testing.T) {
	short := [][]byte{{1, 2, 3}}
	for _, tt := range []struct {
		name   string
		source fakeSource
		sink   fakeSink
		want   error // nil: any
	}{
		{"the first write", fakeSource{}, fakeSink{err: errBroken, errAt: 1}, errBroken},
		{"a later write", fakeSource{turns: [][][]byte{samples(1)}}, fakeSink{err: errBroken, errAt: 2}, errBroken},
		{"a write within a large turn", fakeSource{turns: [][][]byte{samples(5000)}}, fakeSink{err: errBroken, errAt: 3}, errBroken},
		{"a write while draining", fakeSource{left: samples(5000)}, fakeSink{err: errBroken, errAt: 2}, errBroken},
		{"the write of stop", fakeSource{}, fakeSink{err: errBroken, errAt: 2}, errBroken},
		{"reading", fakeSource{readErr: errBroken}, fakeSink{}, errBroken},
		{"counting", fakeSource{countersErr: errBroken}, fakeSink{}, errBroken},
		{"detaching", fakeSource{detachErr: errBroken}, fakeSink{}, errBroken},
		{"decoding", fakeSource{turns: [][][]byte{short}}, fakeSink{}, nil},
		{"decoding what is left", fakeSource{left: short}, fakeSink{}, nil},
	} {
		got := run(t, func(stop func()) (Config, *fakeSource, *fakeSink) {
			tt.source.whenIdle = stop
			return Config{}, &tt.source, &tt.sink
		})
		if got.err == nil || tt.want != nil && !errors.Is(got.err, tt.want) {
			t.Errorf("%s fails: got the error %v, want %v", tt.name, got.err, tt.want)
		}
	}
}
