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
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const limit = 256 << 10

// queueTo makes a queue that is closed at the end of the test. By then its reader
// must be gone or have read everything.
func queueTo(t *testing.T, o Output, limit int) *Queue {
	t.Helper()
	q := NewQueue(o, limit, func(message string) { t.Errorf("the operator is notified: %s", message) })
	t.Cleanup(func() { q.Close() })
	return q
}

func put(t *testing.T, q *Queue, lines string) {
	t.Helper()
	empty, err := q.Put([]byte(lines))
	if err != nil || len(empty) != 0 {
		t.Fatalf("Put returns %d bytes and the error %v, want none", len(empty), err)
	}
}

// fill puts lines until the queue is full, and returns all of them.
func fill(t *testing.T, q *Queue) string {
	t.Helper()
	var all strings.Builder
	for i := 0; !q.Full(); i++ {
		if all.Len() > 2*limit+1<<20 {
			t.Fatalf("%d bytes are in a queue with the limit %d", all.Len(), limit)
		}
		lines := fmt.Sprintf("batch %d\n%s", i, numberedLines(100))
		put(t, q, lines)
		all.WriteString(lines)
	}
	return all.String()
}

// Batches are large for a file, and fit into a pipe.
func TestQueue_BatchSize(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "records"))
	if err != nil {
		t.Fatal(err)
	}
	if got := queueTo(t, outputTo(t, file), limit).BatchSize(); got != fileBatch {
		t.Errorf("a batch for a file has %d bytes, want %d", got, fileBatch)
	}
	_, w := makePipe(t)
	if got := queueTo(t, outputTo(t, w), limit).BatchSize(); got > 64<<10 {
		t.Errorf("a batch for a pipe has %d bytes, want no more than fits into a pipe", got)
	}
}

// A reader that stalls gets all lines in their order when it reads on, including lines
// put beyond the limit.
func TestQueue_StalledReaderGetsAll(t *testing.T) {
	r, w := makePipe(t)
	q := queueTo(t, outputTo(t, w), limit)
	want := fill(t, q)
	for range 100 {
		put(t, q, "must not be lost\n") // this does not wait
		want += "must not be lost\n"
	}
	if q.Written() > 64<<10 {
		t.Errorf("%d bytes are written and not read, want no more than fit into a pipe", q.Written())
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil {
		t.Fatal(err)
	}
	if err := q.Drain(); err != nil || q.Full() || q.Written() != uint64(len(want)) {
		t.Errorf("at the end: full %v, %d of %d bytes written, %v", q.Full(), q.Written(), len(want), err)
	}
	if !bytes.Equal(got, []byte(want)) {
		t.Error("the bytes read are not the bytes put")
	}
}

// A queue that was full stays so until half of its limit has been written.
func TestQueue_FullUntilHalfWritten(t *testing.T) {
	r, w := makePipe(t)
	q := queueTo(t, outputTo(t, w), limit)
	all := len(fill(t, q))
	for read := 0; q.Full(); {
		n, err := r.Read(make([]byte, 4096))
		if err != nil {
			t.Fatal(err)
		}
		if read += n; all-read < limit/2-128<<10 { // less what is in the pipe and in one batch
			t.Fatalf("the queue is full with %d of %d bytes left", all-read, limit)
		}
	}
	r.Close()
}

// Many small batches do not occupy a buffer each.
func TestQueue_SmallBatchesMerged(t *testing.T) {
	r, w := makePipe(t)
	q := queueTo(t, outputTo(t, w), limit)
	lines := make([]byte, 0, 80<<10)
	for !q.Full() {
		var err error
		if lines, err = q.Put(append(lines, "a line\n"...)); err != nil {
			t.Fatal(err)
		}
	}
	q.mu.Lock()
	occupied := 0
	for _, b := range q.waiting {
		occupied += cap(b)
	}
	q.mu.Unlock()
	if occupied > limit+2*cap(lines) {
		t.Errorf("%d bytes of lines occupy %d bytes, want little more", limit, occupied)
	}
	r.Close()
}

// Put allocates nothing while the reader keeps up.
func TestQueue_NoAllocations(t *testing.T) {
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

// The operator is notified of a reader that delays the end, with the number of bytes
// that wait.
func TestQueue_DrainNotice(t *testing.T) {
	r, w := makePipe(t)
	notices := make(chan string)
	q := NewQueue(outputTo(t, w), limit, func(message string) { notices <- message })
	defer q.Close()
	q.drainNotice = 1
	all := fill(t, q)
	drained := make(chan error)
	go func() { drained <- q.Drain() }()
	const want = " bytes wait for the reader of the output, which does not read: a signal ends tcpshift without them"
	if got := <-notices; !strings.HasSuffix(got, want) {
		t.Errorf("the notice is %q, want the number of%s", got, want)
	}
	if _, err := io.ReadFull(r, make([]byte, len(all))); err != nil {
		t.Error(err)
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
}

// A reader that goes away while it stalls ends the queue with ErrReaderGone.
func TestQueue_StalledReaderGone(t *testing.T) {
	r, w := makePipe(t)
	q := queueTo(t, outputTo(t, w), limit)
	fill(t, q)
	r.Close()
	if err := q.Drain(); !errors.Is(err, ErrReaderGone) {
		t.Errorf("Drain returns %v, want %v", err, ErrReaderGone)
	}
	if _, err := q.Put([]byte("more\n")); !errors.Is(err, ErrReaderGone) || q.Full() {
		t.Errorf("another Put returns %v, full %v; want %v and false", err, q.Full(), ErrReaderGone)
	}
	if !q.ReaderGone() {
		t.Error("the reader is not reported as gone")
	}
}

// A full disk gets all lines once it has space again. The operator is notified once.
func TestQueue_FullDiskFreed(t *testing.T) {
	dir := smallTmpfs(t)
	path, ballast := filepath.Join(dir, "records"), filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 48<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	notices := make(chan string, 10)
	q := NewQueue(open(t, path), limit, func(message string) { notices <- message })
	defer q.Close()
	var want string
	for len(want) < 40<<10 {
		put(t, q, numberedLines(50))
		want += numberedLines(50)
	}
	if got, want := <-notices, "write "+path+": no space left on device: writing continues as soon as there is space"; got != want {
		t.Errorf("the notice is %q, want %q", got, want)
	}
	checkWholeLines(t, path, want, len(content(t, path)))
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := q.Drain(); err != nil {
		t.Fatal(err)
	}
	if got := content(t, path); got != want || q.Written() != uint64(len(want)) {
		t.Errorf("the file has %d bytes and Written is %d, want the %d bytes put", len(got), q.Written(), len(want))
	}
	if len(notices) != 0 {
		t.Errorf("there is a second notice of the full disk, want one")
	}
}

// A disk that is still full when the queue is drained is a failure, and has whole lines
// only.
func TestQueue_FullDiskAtEnd(t *testing.T) {
	path := filepath.Join(smallTmpfs(t), "records")
	notices := make(chan string, 10)
	q := NewQueue(open(t, path), limit, func(message string) { notices <- message })
	defer q.Close()
	want := fill(t, q)
	<-notices
	if err := q.Drain(); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("Drain returns %v, want %v", err, unix.ENOSPC)
	}
	checkWholeLines(t, path, want, int(q.Written()))
}

// A full device is not retried, unlike a full disk.
func TestQueue_FullDeviceNotRetried(t *testing.T) {
	q := queueTo(t, open(t, "/dev/full"), limit)
	put(t, q, "a line\n")
	if err := q.Drain(); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("Drain returns %v, want %v", err, unix.ENOSPC)
	}
}

// Buffers that many alerts have made grow are not kept, whatever way they take through the queue.
func TestQueue_GrownBuffersAreNotKept(t *testing.T) {
	r, w := makePipe(t)
	q := queueTo(t, outputTo(t, w), limit)
	go func() { _, _ = io.Copy(io.Discard, r) }()
	usual := 2 * (q.BatchSize() + batchSlack)
	for range 5 {
		for _, size := range []int{2 * limit, 1} { // the second one may be merged into the first
			lines := append(make([]byte, 0, 4*limit), numberedLines(size/10+1)...)
			empty, err := q.Put(lines)
			if err != nil || cap(empty) > usual {
				t.Fatalf("a buffer of %d bytes, want at most %d; %v", cap(empty), usual, err)
			}
		}
		if err := q.Drain(); err != nil {
			t.Fatal(err)
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, spare := range q.spare {
		if cap(spare) > usual {
			t.Errorf("a buffer of %d bytes is kept, want at most %d", cap(spare), usual)
		}
	}
}

// A burst that comes again finds the buffers of the one before. They are given up when none has
// come for a while.
func TestQueue_BuffersOfBursts(t *testing.T) {
	r, w := makePipe(t)
	q := queueTo(t, outputTo(t, w), 1<<30)
	size, batches := q.BatchSize()+batchSlack, 20
	lines := make([]byte, 0, size)
	burst := func(batches int) (allocated uint64) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range batches {
			var err error
			if lines, err = q.Put(lines[:size]); err != nil {
				t.Fatal(err)
			}
		}
		runtime.ReadMemStats(&after)
		if _, err := io.CopyN(io.Discard, r, int64(batches*size)); err != nil {
			t.Fatal(err)
		}
		if err := q.Drain(); err != nil {
			t.Fatal(err)
		}
		return (after.TotalAlloc - before.TotalAlloc) / uint64(size)
	}
	if first, again := burst(batches), burst(batches); first < uint64(batches/2) || again > 2 {
		t.Errorf("the first burst made %d buffers, the next one %d, want about %d and none", first, again, batches)
	}
	time.Sleep(2 * sparePeriod)
	burst(1)
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.spare) > minSpares {
		t.Errorf("%d buffers are kept, want %d", len(q.spare), minSpares)
	}
}

// What a reader that stalls has got is counted while the write still waits.
func TestWriteCounted_StalledReader(t *testing.T) {
	r, w := makePipe(t)
	out := outputTo(t, w)
	lines := []byte(numberedLines(100_000))
	var got atomic.Int64
	done := make(chan error, 1)
	go func() {
		_, err := WriteCounted(out, lines, func(n int) { got.Add(int64(n)) })
		done <- err
	}()
	for deadline := time.Now().Add(30 * time.Second); got.Load() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing is counted while the reader stalls")
		}
	}
	if _, err := io.ReadFull(r, make([]byte, len(lines))); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil || got.Load() != int64(len(lines)) {
		t.Errorf("%d bytes are counted, want %d; %v", got.Load(), len(lines), err)
	}
}
