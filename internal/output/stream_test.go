package output

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// fakeSink keeps all lines.
type fakeSink struct {
	lines  string
	puts   int
	full   bool
	noRoom bool
	failed error // of a write in the background
	err    error
}

func (s *fakeSink) Err() error { return s.failed }

func (s *fakeSink) Room() int {
	if s.noRoom {
		return 0
	}
	return 1 << 30
}

func (s *fakeSink) BatchSize() int   { return 16 }
func (s *fakeSink) Full() bool       { return s.full }
func (s *fakeSink) Written() uint64  { return uint64(len(s.lines)) }
func (s *fakeSink) ReaderGone() bool { return false }
func (s *fakeSink) Drain() error     { return s.err }

func (s *fakeSink) Put(lines []byte) ([]byte, error) {
	s.puts++
	s.lines += string(lines)
	return lines[:0], s.err
}

type fakeRing struct{ crowded bool }

func (r *fakeRing) Crowded() bool { return r.crowded }

func add(t *testing.T, s *Stream, line string) {
	t.Helper()
	s.Lines = append(s.Lines, line...)
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
}

// FlushBatch waits for a whole batch, and Flush does not.
func TestStream_Batch(t *testing.T) {
	sink := &fakeSink{}
	s := NewStream(sink, &fakeRing{}, nil)
	for i := range 4 {
		s.Lines = append(s.Lines, "line\n"...)
		if err := s.FlushBatch(); err != nil {
			t.Fatal(err)
		}
		if want := i / 3; sink.puts != want {
			t.Errorf("after %d lines: %d batches, want %d", i+1, sink.puts, want)
		}
	}
	s.Lines = append(s.Lines, "rest\n"...)
	for range 2 { // nothing is left for the second time
		if err := s.Flush(); err != nil || sink.puts != 2 || sink.lines[20:] != "rest\n" {
			t.Errorf("after Flush: %d batches, lines %q, %v", sink.puts, sink.lines, err)
		}
	}
}

// A full sink stalls the stream only when the ring is crowded, or after 250 ms; once.
func TestStream_GraceOfRing(t *testing.T) {
	for _, tt := range []struct {
		crowded bool
		waits   time.Duration
	}{
		{false, ringGrace},
		{true, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			sink := &fakeSink{full: true}
			s := NewStream(sink, &fakeRing{tt.crowded}, func() { t.Error("it resumes") })
			if s.Stalled() {
				t.Error("it is stalled before anything was put")
			}
			add(t, s, "line\n")
			for _, wait := range []time.Duration{tt.waits, 0} {
				began := time.Now()
				if !s.Stalled() || time.Since(began) != wait {
					t.Errorf("crowded %v: it waits for %v, want it stalled after %v", tt.crowded, time.Since(began), wait)
				}
				add(t, s, "alert\n")
			}
		})
	}
}

// A stall ends with the call of resumed, whose lines come before any other, as soon as
// the sink is not full any more.
func TestStream_Resumes(t *testing.T) {
	sink, resumed := &fakeSink{full: true}, 0
	var s *Stream
	s = NewStream(sink, &fakeRing{crowded: true}, func() {
		resumed++
		s.Lines = append(s.Lines, "loss\n"...)
	})
	add(t, s, "first\n")
	if !s.Stalled() || resumed != 0 {
		t.Fatalf("it is not stalled, or resumed %d times", resumed)
	}
	sink.full = false
	if add(t, s, "alert\n"); s.Stalled() || resumed != 1 {
		t.Errorf("it is still stalled, or resumed %d times, want once", resumed)
	}
	if add(t, s, "next\n"); s.Stalled() || resumed != 1 {
		t.Errorf("it is stalled again, or resumed %d times, want once", resumed)
	}
	if want := "first\nalert\nloss\nnext\n"; sink.lines != want {
		t.Errorf("the lines are %q, want %q", sink.lines, want)
	}
}

// A failure is returned once, by the call that finds it. Lines are discarded afterwards.
func TestStream_FailsOnce(t *testing.T) {
	errBroken := errors.New("it is broken")
	for _, find := range []func(s *Stream) error{(*Stream).Flush, (*Stream).Drain} {
		sink := &fakeSink{err: errBroken}
		s := NewStream(sink, &fakeRing{}, nil)
		s.Lines = append(s.Lines, "line\n"...)
		if err := find(s); !errors.Is(err, errBroken) {
			t.Errorf("the first error is %v, want %v", err, errBroken)
		}
		puts := sink.puts
		s.Lines = append(s.Lines, "another\n"...)
		if err := errors.Join(s.Flush(), s.Drain()); err != nil || sink.puts != puts || len(s.Lines) != 0 {
			t.Errorf("afterwards: the error %v, %d more batches and %d bytes, want none", err, sink.puts-puts, len(s.Lines))
		}
	}
}

// A write that failed in the background is found without another line.
func TestStream_FailsWithoutLines(t *testing.T) {
	errBroken := errors.New("it is broken")
	sink := &fakeSink{}
	s := NewStream(sink, &fakeRing{}, nil)
	if err := s.Flush(); err != nil {
		t.Error(err)
	}
	sink.failed = errBroken
	if first, second := s.Flush(), s.Flush(); !errors.Is(first, errBroken) || second != nil || sink.puts != 0 {
		t.Errorf("the errors are %v and %v after %d batches, want one without a batch", first, second, sink.puts)
	}
}
