package output

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const limit = 256 << 10

// queueTo makes a queue that is closed with the test. A reader must be gone or
// have read by then.
func queueTo(t *testing.T, o *Output, limit int) *Queue {
	t.Helper()
	q := NewQueue(o, limit, func(message string) { t.Errorf("it says: %s", message) })
	t.Cleanup(q.Close)
	return q
}

func put(t *testing.T, q *Queue, lines string) {
	t.Helper()
	empty, err := q.Put([]byte(lines))
	if err != nil || len(empty) != 0 {
		t.Fatalf("put gives %d bytes and the error %v, want none", len(empty), err)
	}
}

// fill puts until the queue says that it is full, and gives all that was put.
func fill(t *testing.T, q *Queue) string {
	t.Helper()
	var all strings.Builder
	for i := 0; !q.Full(); i++ {
		if all.Len() > 2*limit+1<<20 {
			t.Fatalf("%d bytes are in a queue for %d", all.Len(), limit)
		}
		lines := fmt.Sprintf("batch %d\n%s", i, numberedLines(100))
		put(t, q, lines)
		all.WriteString(lines)
	}
	return all.String()
}

func TestBatchesAreLargeForAFileAndFitIntoAPipe(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "records"))
	if err != nil {
		t.Fatal(err)
	}
	if got := queueTo(t, outputTo(t, file), limit).Batch(); got != fileBatch {
		t.Errorf("a batch for a file has %d bytes, want %d", got, fileBatch)
	}
	_, w := pipe(t)
	if got := queueTo(t, outputTo(t, w), limit).Batch(); got > 64<<10 {
		t.Errorf("a batch for a pipe has %d bytes, want no more than a pipe holds", got)
	}
}

func TestAReaderWhoStallsGetsEverythingInItsOrderWhenHeReads(t *testing.T) {
	r, w := pipe(t)
	q := queueTo(t, outputTo(t, w), limit)
	want := fill(t, q)
	for range 100 {
		put(t, q, "must not be lost\n") // and does not wait
		want += "must not be lost\n"
	}
	if q.Written() > 64<<10 {
		t.Errorf("%d bytes are written that nobody has read, want no more than a pipe holds", q.Written())
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil {
		t.Fatal(err)
	}
	if err := q.Drain(); err != nil || q.Full() || q.Written() != uint64(len(want)) {
		t.Errorf("in the end: full %v, %d of %d bytes written, %v", q.Full(), q.Written(), len(want), err)
	}
	if !bytes.Equal(got, []byte(want)) {
		t.Error("what was read is not what was put")
	}
}

// And needs nobody in the background, who would be on another CPU.
func TestWhatAPipeHasRoomForIsInItWhenPutReturns(t *testing.T) {
	r, w := pipe(t)
	q := queueTo(t, outputTo(t, w), limit)
	for i := range 3 {
		lines := numberedLines(100 + i)
		before := q.Written()
		put(t, q, lines)
		if n := q.Written() - before; n != uint64(len(lines)) {
			t.Fatalf("%d of %d bytes are written", n, len(lines))
		}
		got := make([]byte, len(lines))
		if _, err := io.ReadFull(r, got); err != nil || string(got) != lines {
			t.Fatalf("what was read is not what was put, %v", err)
		}
	}
}

func TestAQueueIsFullUntilHalfOfItIsWritten(t *testing.T) {
	r, w := pipe(t)
	q := queueTo(t, outputTo(t, w), limit)
	all := len(fill(t, q))
	for read := 0; q.Full(); {
		n, err := r.Read(make([]byte, 4096))
		if err != nil {
			t.Fatal(err)
		}
		if read += n; all-read < limit/2-128<<10 { // what a pipe and a batch hold
			t.Fatalf("it is full with %d of %d bytes left", all-read, limit)
		}
	}
	r.Close()
}

func TestManySmallBatchesShareTheirMemory(t *testing.T) {
	r, w := pipe(t)
	q := queueTo(t, outputTo(t, w), limit)
	lines := make([]byte, 0, 80<<10)
	for !q.Full() {
		var err error
		if lines, err = q.Put(append(lines, "a line\n"...)); err != nil {
			t.Fatal(err)
		}
	}
	q.mu.Lock()
	taken := 0
	for _, b := range q.waiting {
		taken += cap(b)
	}
	q.mu.Unlock()
	if taken > limit+2*cap(lines) {
		t.Errorf("%d bytes of lines take %d bytes, want little more", limit, taken)
	}
	r.Close()
}

func TestABatchTakesNoMemory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records")
	q := queueTo(t, open(t, path), limit)
	lines := make([]byte, 0, 80<<10)
	batch := []byte(numberedLines(1000))
	var all uint64
	step := func() {
		var err error
		if lines, err = q.Put(append(lines, batch...)); err != nil {
			t.Fatal(err)
		}
		for all += uint64(len(batch)); q.Written() < all; {
			runtime.Gosched()
		}
	}
	step()
	if n := testing.AllocsPerRun(50, step); n != 0 {
		t.Errorf("%v allocations for a batch, want none", n)
	}
}

func TestWhatMustNotBeLostWaitsWhereEvenTheReserveIsTaken(t *testing.T) {
	r, w := pipe(t)
	q := queueTo(t, outputTo(t, w), limit)
	big := strings.Repeat("x", 1<<20-1) + "\n"
	done := make(chan error)
	go func() {
		for range 16 {
			if _, err := q.Put([]byte(big)); err != nil {
				done <- err
				return
			}
		}
		done <- q.Drain()
	}()
	got, most := 0, 0
	for got < 16<<20 {
		n, err := r.Read(make([]byte, 1<<20))
		if err != nil {
			t.Fatal(err)
		}
		got += n
		q.mu.Lock()
		most = max(most, q.size)
		q.mu.Unlock()
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if most > limit+reserve+1<<20 {
		t.Errorf("%d bytes were waiting, want %d and one batch at most", most, limit+reserve)
	}
}

func TestAReaderWhoKeepsItFromEndingIsToldOf(t *testing.T) {
	r, w := pipe(t)
	told := make(chan string)
	q := NewQueue(outputTo(t, w), limit, func(message string) { told <- message })
	defer q.Close()
	q.patience = 1
	all := fill(t, q)
	drained := make(chan error)
	go func() { drained <- q.Drain() }()
	const want = " bytes wait for a reader who does not read: a second signal ends it without them"
	if got := <-told; !strings.HasSuffix(got, want) {
		t.Errorf("it says %q, want the number of%s", got, want)
	}
	if _, err := io.ReadFull(r, make([]byte, len(all))); err != nil {
		t.Error(err)
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
}

func TestAReaderWhoDiesWhileItIsStalledEndsTheQueue(t *testing.T) {
	r, w := pipe(t)
	q := queueTo(t, outputTo(t, w), limit)
	fill(t, q)
	r.Close()
	if err := q.Drain(); !errors.Is(err, ErrReaderGone) {
		t.Errorf("draining gives %v, want %v", err, ErrReaderGone)
	}
	if _, err := q.Put([]byte("more\n")); !errors.Is(err, ErrReaderGone) || q.Full() {
		t.Errorf("putting more gives %v, full %v; want %v and no", err, q.Full(), ErrReaderGone)
	}
	if !q.ReaderGone() {
		t.Error("the reader is not gone, want it to be")
	}
}

func TestADiskThatWasSlowIsWrittenToInTheBackground(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	o, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	q := queueTo(t, o, limit)
	line := []byte("a line\n")
	own, err := q.Put(line)
	if err != nil || &own[:1][0] != &line[0] {
		t.Errorf("a buffer comes back, error %v, that is not the one put: it was not written at once", err)
	}
	q.took(slow)
	other, err := q.Put(line)
	if err != nil || &other[:1][0] == &line[0] {
		t.Errorf("the buffer comes back, error %v: it was written at once though the disk is slow", err)
	}
	if err := q.Drain(); err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "a line\na line\n" {
		t.Errorf("the file has %q, %v", got, err)
	}
}

func TestAFullDiskThatIsFreedGetsEverything(t *testing.T) {
	dir := smallTmpfs(t)
	path, ballast := filepath.Join(dir, "records"), filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 48<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	told := make(chan string, 10)
	q := NewQueue(open(t, path), limit, func(message string) { told <- message })
	defer q.Close()
	var want string
	for len(want) < 40<<10 {
		put(t, q, numberedLines(50))
		want += numberedLines(50)
	}
	if got, want := <-told, "write "+path+": no space left on device: it goes on when there is room again"; got != want {
		t.Errorf("it says %q, want %q", got, want)
	}
	checkWholeLines(t, path, want, len(content(t, path)))
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := q.Drain(); err != nil {
		t.Fatal(err)
	}
	if got := content(t, path); got != want || q.Written() != uint64(len(want)) {
		t.Errorf("%d bytes are in the file and %d said to be, want the %d that were put", len(got), q.Written(), len(want))
	}
	if len(told) != 0 {
		t.Errorf("a full disk is told again, want once")
	}
}

func TestADiskThatIsFullAtTheEndIsAFailure(t *testing.T) {
	path := filepath.Join(smallTmpfs(t), "records")
	told := make(chan string, 10)
	q := NewQueue(open(t, path), limit, func(message string) { told <- message })
	defer q.Close()
	want := fill(t, q)
	<-told
	if err := q.Drain(); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("draining gives %v, want %v", err, unix.ENOSPC)
	}
	checkWholeLines(t, path, want, int(q.Written()))
}

func TestAFullDeviceIsNoDiskThatMayBeFreed(t *testing.T) {
	q := queueTo(t, open(t, "/dev/full"), limit)
	put(t, q, "a line\n")
	if err := q.Drain(); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("draining gives %v, want %v", err, unix.ENOSPC)
	}
}
