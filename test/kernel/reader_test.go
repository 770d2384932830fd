package kernel_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/tcpshift/tcpshift/internal/ring"
	"github.com/tcpshift/tcpshift/test/lab"
)

// writer is a ring buffer of one page and programs that write samples of a length
// into it, or, of none, give one up.
type writer struct {
	t      *testing.T
	events *ebpf.Map
	reader *ring.Reader
	byLen  map[int]*ebpf.Program
}

func newWriter(t *testing.T) *writer {
	t.Helper()
	lab.RequireRoot(t)
	w := &writer{t: t, byLen: make(map[int]*ebpf.Program)}
	var err error
	if w.events, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.RingBuf, MaxEntries: 4096}); err == nil {
		w.reader, err = ring.New(w.events.FD(), 4096)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.reader.Close()
		w.events.Close()
	})
	return w
}

func (w *writer) program(length int) *ebpf.Program {
	if p := w.byLen[length]; p != nil {
		return p
	}
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
		asm.LoadMapPtr(asm.R1, w.events.FD()),
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
	w.byLen[length] = p
	return p
}

// write says whether there was room.
func (w *writer) write(sample []byte) bool {
	w.t.Helper()
	packet := append(bytes.Clone(sample), make([]byte, 64)...) // XDP wants an Ethernet header at least
	result, err := w.program(len(sample)).Run(&ebpf.RunOptions{Data: packet})
	if err != nil {
		w.t.Fatalf("run a program: %v", err)
	}
	return result == 0
}

func (w *writer) read() (all [][]byte) {
	w.t.Helper()
	err := w.reader.Read(0, func(sample []byte) error {
		all = append(all, bytes.Clone(sample))
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// numbered is a sample that tells itself from its neighbours.
func numbered(n, length int) []byte {
	sample := make([]byte, length)
	for i := range sample {
		sample[i] = byte(n + i*i)
	}
	return sample
}

func TestARingGivesEachSampleOnceAndInOrderHoweverOftenItGoesRound(t *testing.T) {
	w := newWriter(t)
	lengths := []int{1, 7, 8, 0, 13, 120, 1000, 128}
	var want, got [][]byte
	for n := range 400 {
		sample := numbered(n, lengths[n%len(lengths)])
		if !w.write(sample) {
			t.Fatalf("sample %d found no room", n)
		}
		if len(sample) > 0 { // one that is given up is nobody's
			want = append(want, sample)
		}
		if n%3 == 2 {
			got = append(got, w.read()...)
		}
	}
	got = append(got, w.read()...)
	if !slices.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("%d samples came, want %d:\n%x\n%x", len(got), len(want), got, want)
	}
}

func TestARingThatWasFullTakesAsMuchAgainOnceItHasBeenRead(t *testing.T) {
	w := newWriter(t)
	for round := range 5 {
		var want [][]byte
		for w.write(numbered(len(want), 120)) {
			want = append(want, numbered(len(want), 120))
		}
		if len(want) != 4096/128-1 { // the kernel never fills it to the last byte
			t.Errorf("in round %d there was room for %d samples of 128 bytes with their heads, want 31", round, len(want))
		}
		if got := w.read(); !slices.EqualFunc(got, want, bytes.Equal) {
			t.Errorf("in round %d: %x, want %x", round, got, want)
		}
	}
}

func TestASampleWhoseHandlerFailsCountsAsRead(t *testing.T) {
	w := newWriter(t)
	for n := range 3 {
		w.write(numbered(n, 8))
	}
	enough := errors.New("enough")
	var first []byte
	if err := w.reader.Read(0, func(sample []byte) error { first = bytes.Clone(sample); return enough }); !errors.Is(err, enough) {
		t.Errorf("got error %v, want the handler's", err)
	}
	got := append([][]byte{first}, w.read()...)
	if want := [][]byte{numbered(0, 8), numbered(1, 8), numbered(2, 8)}; !slices.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("got %x, want %x", got, want)
	}
}

func TestAWaitForSamplesEndsWhenOneWakesTheReader(t *testing.T) {
	w := newWriter(t)
	w.program(8)
	var got []byte
	done := errors.New("done")
	go func() {
		time.Sleep(20 * time.Millisecond)
		w.write(numbered(5, 8)) // without flags it wakes a reader that has read all
	}()
	const patience = time.Minute
	if err := w.reader.Read(patience, func(sample []byte) error { got = bytes.Clone(sample); return done }); !errors.Is(err, done) {
		t.Errorf("got error %v, want the handler's", err)
	}
	if want := numbered(5, 8); !bytes.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
}

func TestAWaitForSamplesEndsWithItsTime(t *testing.T) {
	w := newWriter(t)
	if err := w.reader.Read(5*time.Millisecond, func([]byte) error { return errors.New("there is none") }); err != nil {
		t.Error(err)
	}
}
