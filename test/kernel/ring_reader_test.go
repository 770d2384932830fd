package kernel_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/tcpshift/tcpshift/internal/boottime"
	"github.com/tcpshift/tcpshift/internal/ring"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// writer has ring buffers of 64 KiB, and programs that write samples of a given length
// into one of them. A program for length 0 discards its reservation.
type writer struct {
	t        *testing.T
	rings    []*ebpf.Map
	reader   *ring.Reader
	programs map[place]*ebpf.Program
}

type place struct{ ring, length int }

// ringBytes is the smallest ring size on hosts with 64 KiB pages.
const ringBytes = 64 << 10

// newWriter makes the given number of rings. If there are several, the last one is the
// priority ring.
func newWriter(t *testing.T, rings int) *writer {
	t.Helper()
	tcplab.RequireRoot(t)
	w := &writer{t: t, programs: make(map[place]*ebpf.Program)}
	var parts []ring.Buffer
	for range rings {
		m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.RingBuf, MaxEntries: ringBytes})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Close() })
		w.rings = append(w.rings, m)
		parts = append(parts, ring.Buffer{FD: m.FD(), Size: ringBytes})
	}
	var ahead *ring.Buffer
	if rings > 1 {
		parts, ahead = parts[:rings-1], &parts[rings-1]
	}
	var err error
	if w.reader, err = ring.New(parts, ahead); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.reader.Close() })
	return w
}

func (w *writer) program(at place) *ebpf.Program {
	if p := w.programs[at]; p != nil {
		return p
	}
	length := at.length
	reserved, last := max(length, 1), asm.FnRingbufSubmit
	if length == 0 {
		last = asm.FnRingbufDiscard
	}
	code := asm.Instructions{
		asm.LoadMem(asm.R6, asm.R1, 0, asm.Word), // xdp_md.data
		asm.LoadMem(asm.R2, asm.R1, 4, asm.Word), // xdp_md.data_end
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Add.Imm(asm.R1, int32(reserved)),
		asm.Mov.Imm(asm.R0, 1),
		asm.JGT.Reg(asm.R1, asm.R2, "out"),
		asm.LoadMapPtr(asm.R1, w.rings[at.ring].FD()),
		asm.Mov.Imm(asm.R2, int32(reserved)),
		asm.Mov.Imm(asm.R3, 0),
		asm.FnRingbufReserve.Call(),
		asm.Mov.Reg(asm.R7, asm.R0),
		asm.Mov.Imm(asm.R0, 1),
		asm.JEq.Imm(asm.R7, 0, "out"),
	}
	for i := range int16(reserved) {
		code = append(code, asm.LoadMem(asm.R1, asm.R6, i, asm.Byte), asm.StoreMem(asm.R7, i, asm.R1, asm.Byte))
	}
	code = append(code, asm.Mov.Reg(asm.R1, asm.R7), asm.Mov.Imm(asm.R2, 0), last.Call(),
		asm.Mov.Imm(asm.R0, 0), asm.Return().WithSymbol("out"))
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL", Instructions: code})
	if err != nil {
		w.t.Fatalf("load a program that writes %d bytes: %+v", length, err)
	}
	w.t.Cleanup(func() { p.Close() })
	w.programs[at] = p
	return p
}

// write writes into the first ring and reports whether there was room.
func (w *writer) write(sample []byte) bool {
	w.t.Helper()
	return w.writeTo(0, sample)
}

func (w *writer) writeTo(ring int, sample []byte) bool {
	w.t.Helper()
	packet := append(bytes.Clone(sample), make([]byte, 64)...) // XDP needs an Ethernet header at least
	result, err := w.program(place{ring, len(sample)}).Run(&ebpf.RunOptions{Data: packet})
	if err != nil {
		w.t.Fatalf("run a program: %v", err)
	}
	return result == 0
}

func (w *writer) read() (all [][]byte) {
	w.t.Helper()
	err := w.reader.ReadFor(0, func(sample []byte) error {
		all = append(all, bytes.Clone(sample))
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// numbered is a sample that differs from those before and after it.
func numbered(n, length int) []byte {
	sample := make([]byte, length)
	for i := range sample {
		sample[i] = byte(n + i*i)
	}
	return sample
}

// The reader returns every sample once and in order while the ring wraps many times.
func TestRing_OrderAcrossWraps(t *testing.T) {
	w := newWriter(t, 1)
	lengths := []int{1, 7, 8, 0, 13, 120, 1000, 128}
	var want, got [][]byte
	for n := range 4000 {
		sample := numbered(n, lengths[n%len(lengths)])
		if !w.write(sample) {
			t.Fatalf("no room for sample %d", n)
		}
		if len(sample) > 0 { // the others are discarded
			want = append(want, sample)
		}
		if n%3 == 2 {
			got = append(got, w.read()...)
		}
	}
	got = append(got, w.read()...)
	if !slices.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("read %d samples, want %d:\n%x\n%x", len(got), len(want), got, want)
	}
}

// A full ring takes as many samples again after it was read, but for the one that a reader keeps
// while it is awake.
func TestRing_FullThenRead(t *testing.T) {
	w := newWriter(t, 1)
	for round := range 5 {
		var want [][]byte
		for w.write(numbered(len(want), 120)) {
			want = append(want, numbered(len(want), 120))
		}
		room := ringBytes/128 - 1 // the kernel keeps it from filling up completely
		if round > 0 {
			room--
		}
		if len(want) != room {
			t.Errorf("round %d: room for %d samples of 128 bytes with headers, want %d", round, len(want), room)
		}
		if got := w.read(); !slices.EqualFunc(got, want, bytes.Equal) {
			t.Errorf("round %d: got %x, want %x", round, got, want)
		}
	}
}

// A sample whose handler returns an error counts as read.
func TestRing_HandlerError(t *testing.T) {
	w := newWriter(t, 1)
	for n := range 3 {
		w.write(numbered(n, 8))
	}
	enough := errors.New("enough")
	var first []byte
	if err := w.reader.ReadFor(0, func(sample []byte) error { first = bytes.Clone(sample); return enough }); !errors.Is(err, enough) {
		t.Errorf("got error %v, want the handler's", err)
	}
	got := append([][]byte{first}, w.read()...)
	if want := [][]byte{numbered(0, 8), numbered(1, 8), numbered(2, 8)}; !slices.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("got %x, want %x", got, want)
	}
}

// A blocking read ends when a sample wakes the reader.
func TestRing_WaitEndsWithSample(t *testing.T) {
	w := newWriter(t, 1)
	w.program(place{0, 8})
	var got []byte
	done := errors.New("done")
	go func() {
		time.Sleep(20 * time.Millisecond)
		w.write(numbered(5, 8)) // without flags it wakes a reader that has read everything
	}()
	const waitLimit = time.Minute
	if err := w.reader.ReadFor(waitLimit, func(sample []byte) error { got = bytes.Clone(sample); return done }); !errors.Is(err, done) {
		t.Errorf("got error %v, want the handler's", err)
	}
	if want := numbered(5, 8); !bytes.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
}

// A blocking read without a sample ends after its timeout.
func TestRing_WaitTimesOut(t *testing.T) {
	w := newWriter(t, 1)
	if err := w.reader.ReadFor(5*time.Millisecond, func([]byte) error { return errors.New("there is none") }); err != nil {
		t.Error(err)
	}
}

// dated is a sample that begins with a time, and has a number.
func dated(at time.Duration, n int) []byte {
	return binary.NativeEndian.AppendUint64(binary.NativeEndian.AppendUint64(nil, uint64(at)), uint64(n))
}

// Samples of several rings are read in the order of their times.
func TestRing_MergedByTime(t *testing.T) {
	w := newWriter(t, 4)
	began := boottime.Now() - time.Second
	random := rand.New(rand.NewPCG(1, 2))
	var want [][]byte
	for n := range 2000 {
		sample := dated(began+time.Duration(n), n)
		if !w.writeTo(random.IntN(3), sample) {
			t.Fatalf("no room for sample %d", n)
		}
		want = append(want, sample)
	}
	if got := w.read(); !slices.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("got %x, want %x", got, want)
	}
}

// Samples of one ring keep their order, whatever their times: a deferred sample has the
// time at which it was made.
func TestRing_OrderWithinOneRing(t *testing.T) {
	w := newWriter(t, 3)
	began := boottime.Now() - time.Second
	inOne := [][]byte{dated(began+50, 0), dated(began+10, 1), dated(began+60, 2), dated(began+60, 3), dated(began, 4)}
	for _, sample := range inOne {
		w.writeTo(1, sample)
	}
	other := dated(began+55, 5)
	w.writeTo(0, other)
	want := slices.Insert(slices.Clone(inOne), 2, other)
	if got := w.read(); !slices.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("got %x, want %x", got, want)
	}
}

// The samples of the priority ring come before older ones of other rings.
func TestRing_PriorityRingFirst(t *testing.T) {
	w := newWriter(t, 3)
	older, younger := dated(boottime.Now()-2*time.Second, 0), dated(boottime.Now()-time.Second, 1)
	w.writeTo(0, older)
	w.writeTo(1, younger)
	path := []byte("a path, without a time")
	w.writeTo(2, path)
	want := [][]byte{path, older, younger}
	if got := w.read(); !slices.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Finish reads all samples, also those whose time is in the future by the reader's
// clock.
func TestRing_FinishReadsAll(t *testing.T) {
	w := newWriter(t, 3)
	old, young := dated(boottime.Now()-time.Second, 0), dated(boottime.Now()+time.Hour, 1)
	w.writeTo(0, young)
	w.writeTo(1, old)
	w.reader.Finish()
	if got, want := w.read(), [][]byte{old, young}; !slices.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("got %x, want %x", got, want)
	}
}

// A sample that is newer than the start of the read is left for the next read: an event
// that caused it may be in a ring that has been read already.
func TestRing_SampleNewerThanRead(t *testing.T) {
	w := newWriter(t, 3)
	const ahead = 2 * time.Second
	old, young := dated(boottime.Now()-time.Second, 0), dated(boottime.Now()+ahead, 1)
	w.writeTo(0, young)
	w.writeTo(1, old)
	if got, want := w.read(), [][]byte{old}; !slices.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("got %x, want %x", got, want)
	}
	time.Sleep(ahead)
	if got, want := w.read(), [][]byte{young}; !slices.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("later got %x, want %x", got, want)
	}
}
