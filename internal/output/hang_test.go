package output

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hanging is an output whose writes do not return until it is freed, as on a frozen disk.
type hanging struct {
	descriptor
	entered chan struct{} // gets a value at the begin of each write
	freed   chan struct{}
}

func (h *hanging) try(lines []byte) (int, error) {
	h.entered <- struct{}{}
	<-h.freed
	return len(lines), nil
}

func (h *hanging) Reopen() error { h.entered <- struct{}{}; <-h.freed; return nil }

func newHanging() *hanging {
	return &hanging{entered: make(chan struct{}, 100), freed: make(chan struct{})}
}

const tooLong = 10 * time.Second

// mustReturn fails if f does not return.
func mustReturn(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(tooLong):
		t.Fatalf("%s has not returned within %v", what, tooLong)
	}
}

// While a write hangs, nothing that the loop calls waits: neither for the disk nor for a lock.
func TestQueue_HangingWrite(t *testing.T) {
	h := newHanging()
	q := queueTo(t, h, limit)
	put(t, q, "first\n")
	<-h.entered
	mustReturn(t, "the loop's part", func() {
		for q.Room() > 0 { // 4 MiB and more
			put(t, q, strings.Repeat("x", 1<<16-1)+"\n")
		}
		put(t, q, "beyond the reserve\n")
		_, _, _ = q.Full(), q.Written(), q.ReaderGone()
		q.Reopen()
	})
	if q.Written() != 0 || !q.Full() || q.Waiting() < limit+reserve {
		t.Errorf("%d bytes are written, full %v, %d wait", q.Written(), q.Full(), q.Waiting())
	}
	close(h.freed)
	if err := q.Drain(); err != nil || q.Waiting() != 0 || q.Room() != limit+reserve {
		t.Errorf("after the write: %v, %d bytes wait, room for %d", err, q.Waiting(), q.Room())
	}
}

// After Abandon, Close ends the goroutine if it uses the output no longer: the caller must then close
// the output, because some file systems report a failed write only there.
func TestQueue_CloseAfterAbandon(t *testing.T) {
	q := NewQueue(open(t, filepath.Join(t.TempDir(), "records")), limit, func(string) {})
	put(t, q, "a line\n")
	if err := q.Drain(); err != nil {
		t.Fatal(err)
	}
	q.Abandon()
	if !q.Close() {
		t.Error("Close returns false, want true: nothing is being written")
	}
}

// Abandon ends the waits of Drain and Close for a write that hangs. Drain reports the number of
// bytes that were not written.
func TestQueue_Abandon(t *testing.T) {
	h := newHanging()
	q := NewQueue(h, limit, func(string) {})
	put(t, q, "first\n")
	<-h.entered
	put(t, q, "second\n")
	time.AfterFunc(50*time.Millisecond, q.Abandon)
	mustReturn(t, "the end", func() {
		var notWritten *NotWrittenError
		if err := q.Drain(); !errors.As(err, &notWritten) || notWritten.Bytes != 13 {
			t.Errorf("Drain returns %v, want that 13 bytes are not written", err)
		}
		if _, err := q.Put([]byte("third\n")); !errors.As(err, &notWritten) {
			t.Errorf("Put returns %v, want the error of Drain", err)
		}
		if q.Close() {
			t.Error("Close says that the goroutine has ended")
		}
	})
	close(h.freed)
}

// A file that hangs when it is opened again does not keep Close.
func TestQueue_HangingReopen(t *testing.T) {
	h := newHanging()
	q := NewQueue(h, limit, func(string) {})
	q.Reopen()
	<-h.entered
	put(t, q, "line\n")
	q.Abandon()
	mustReturn(t, "the end", func() {
		if err := q.Drain(); err == nil || q.Close() {
			t.Errorf("Drain returns %v, want an error", err)
		}
	})
	close(h.freed)
}

// A reader that has read nothing when the queue is abandoned has what fits into its pipe; the
// rest is reported to the byte.
func TestQueue_AbandonPipe(t *testing.T) {
	r, w := makePipe(t)
	q := NewQueue(outputTo(t, w), limit, func(string) {})
	all, fits := fill(t, q), 0
	for began, same := time.Now(), 0; same < 20; time.Sleep(time.Millisecond) {
		before := fits
		var err error
		if fits, err = unix.IoctlGetInt(int(r.Fd()), unix.TIOCINQ); err != nil || time.Since(began) > tooLong {
			t.Fatalf("%d bytes are in the pipe, %d written, %v", fits, q.Written(), err)
		}
		if same++; fits != before || uint64(fits) != q.Written() || fits == 0 {
			same = 0
		}
	}
	q.Abandon()
	var notWritten *NotWrittenError
	if err := q.Drain(); !errors.As(err, &notWritten) || notWritten.Bytes != len(all)-fits {
		t.Errorf("%d bytes are in the pipe, Drain returns %v; want an error that counts the rest of %d", fits, err, len(all))
	}
	r.Close()
}

// A queue that is discarded counts what its reader has not taken, and its output can be closed.
func TestQueue_Discard(t *testing.T) {
	_, w := makePipe(t)
	q := NewQueue(outputTo(t, w), limit, func(string) {})
	all := fill(t, q)
	q.Discard()
	var notWritten *NotWrittenError
	if err := q.Drain(); !errors.As(err, &notWritten) || notWritten.Bytes < len(all)-64<<10 {
		t.Errorf("Drain returns %v; want an error that counts what the pipe does not take of %d bytes", err, len(all))
	}
	if !q.Close() {
		t.Error("the queue still uses the output")
	}
}

// So does a queue whose receiver is away, which would wait for it for as long as it takes.
func TestQueue_DiscardWithoutReceiver(t *testing.T) {
	var m messages
	out := openRemote(t, Remote{Network: "tcp", Address: "127.0.0.1:1", Notify: m.add})
	q := NewQueue(out, limit, m.add)
	all := fill(t, q)
	began := time.Now()
	q.Discard()
	var notWritten *NotWrittenError
	if err := q.Drain(); !errors.As(err, &notWritten) || notWritten.Bytes != len(all) {
		t.Errorf("Drain returns %v; want an error that counts %d bytes", err, len(all))
	}
	if !q.Close() || time.Since(began) > tooLong/2 {
		t.Errorf("the queue ends after %v", time.Since(began))
	}
	if err := out.Close(); err != nil {
		t.Error(err)
	}
}

// nonblockingEnds are outputs whose open file description somebody has made nonblocking, and
// the other ends.
func nonblockingEnds(t *testing.T) map[string][2]*os.File {
	t.Helper()
	ends := make(map[string][2]*os.File)
	r, w := makePipe(t)
	ends["pipe"] = [2]*os.File{w, r}
	ours, theirs := socketPair(t)
	ends["unix socket"] = [2]*os.File{ours, theirs}
	ours, theirs = tcpPair(t)
	for option, f := range map[int]*os.File{unix.SO_SNDBUF: ours, unix.SO_RCVBUF: theirs} { // or megabytes fit
		if err := unix.SetsockoptInt(int(f.Fd()), unix.SOL_SOCKET, option, 64<<10); err != nil {
			t.Fatal(err)
		}
	}
	ends["tcp socket"] = [2]*os.File{ours, theirs}
	master, slave := openPTY(t)
	ends["terminal"] = [2]*os.File{slave, master}
	return ends
}

// openPTY opens a terminal that does not change what is written to it.
func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	settings, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err == nil {
		settings.Oflag, settings.Lflag = 0, 0
		err = unix.IoctlSetTermios(int(slave.Fd()), unix.TCSETS, settings)
	}
	if err != nil {
		t.Fatal(err)
	}
	return master, slave
}

// EAGAIN is a reader that stalls, on any kind of descriptor: nothing is lost or torn, for a
// queue and for a Write that waits.
func TestQueue_NonblockingDescriptor(t *testing.T) {
	for name, ends := range nonblockingEnds(t) {
		t.Run(name, func(t *testing.T) {
			ours, theirs := ends[0], ends[1]
			o := outputTo(t, ours)
			if err := unix.SetNonblock(int(ours.Fd()), true); err != nil {
				t.Fatal(err)
			}
			q := queueTo(t, o, limit)
			all := fill(t, q)
			got := make([]byte, len(all))
			if _, err := io.ReadFull(theirs, got); err != nil || !bytes.Equal(got, []byte(all)) {
				t.Errorf("the bytes read are not the bytes put, %v", err)
			}
			if err := q.Drain(); err != nil || q.Written() != uint64(len(all)) {
				t.Errorf("%d of %d bytes are written, %v", q.Written(), len(all), err)
			}
			written := make(chan error)
			go func() { _, err := o.Write([]byte(all)); written <- err }()
			if _, err := io.ReadFull(theirs, got); err != nil || !bytes.Equal(got, []byte(all)) {
				t.Errorf("a direct Write: the bytes read are not the bytes written, %v", err)
			}
			if err := <-written; err != nil {
				t.Errorf("a direct Write: %v", err)
			}
		})
	}
}

// A terminal that hangs up is a reader that goes away, with nothing to write and with a write.
func TestReaderGone_Terminal(t *testing.T) {
	master, slave := openPTY(t)
	o := outputTo(t, slave)
	write(t, o, "line\n")
	if o.ReaderGone() {
		t.Error("the terminal is reported as gone, and is there")
	}
	master.Close()
	for began := time.Now(); !o.ReaderGone(); time.Sleep(time.Millisecond) {
		if time.Since(began) > tooLong {
			t.Fatal("the terminal has hung up, and is not reported as gone")
		}
	}
	if n, err := o.Write([]byte("line\n")); !errors.Is(err, ErrReaderGone) {
		t.Errorf("Write returns %d, %v; want %v", n, err, ErrReaderGone)
	}
}

// A file that was renamed is opened again between two lines, with nothing to write, too. If
// that fails, the old file stays in use.
func TestQueue_Reopen(t *testing.T) {
	dir := t.TempDir()
	path, old := filepath.Join(dir, "records"), filepath.Join(dir, "records.1")
	notices := make(chan string, 10)
	o := open(t, path)
	if !o.Reopens() {
		t.Error("a file with a path does not reopen")
	}
	q := NewQueue(o, limit, func(message string) { notices <- message })
	defer q.Close()
	put(t, q, "1\n")
	if err := errors.Join(q.Drain(), os.Rename(path, old)); err != nil {
		t.Fatal(err)
	}
	q.Reopen()
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			break
		}
		if time.Since(began) > tooLong {
			t.Fatal("the path was not opened again")
		}
	}
	put(t, q, "2\n")
	if err := errors.Join(q.Drain(), os.Rename(path, path+".2"), os.Symlink(old, path)); err != nil {
		t.Fatal(err)
	}
	q.Reopen()
	if got, want := <-notices, "reopen the output: "+path+" is a symbolic link: the file that is open stays in use"; got != want {
		t.Errorf("the notice is %q, want %q", got, want)
	}
	put(t, q, "3\n")
	if err := q.Drain(); err != nil {
		t.Fatal(err)
	}
	if first, second := content(t, old), content(t, path+".2"); first != "1\n" || second != "2\n3\n" {
		t.Errorf("the files contain %q and %q", first, second)
	}
}

// Neither standard output nor what is not a file on a disk can be opened again.
func TestOpen_Reopens(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	_, w := makePipe(t)
	for what, o := range map[string]Output{"standard output": outputTo(t, file), "a pipe": outputTo(t, w), "a device": open(t, "/dev/null")} {
		if o.Reopens() {
			t.Errorf("%s can be opened again", what)
		}
	}
}

// Messages do not wait for standard error. Too many are counted.
func TestNotices_NeverWait(t *testing.T) {
	r, w := makePipe(t)
	if _, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 4096); err != nil {
		t.Fatal(err)
	}
	n := NewNotices(int(w.Fd()))
	message := strings.Repeat("x", 1000)
	mustReturn(t, "adding messages", func() {
		for range 2 * maxNotices {
			n.Add(message)
		}
		n.Flush(10 * time.Millisecond)
	})
	read := make([]byte, 1<<20)
	size := 0
	for began := time.Now(); !bytes.Contains(read[:size], []byte("tcpshift: last; of all\n")); {
		if time.Since(began) > tooLong {
			t.Fatalf("%q", read[:size])
		}
		got, err := r.Read(read[size:])
		if err != nil {
			t.Fatal(err)
		}
		size += got
		if size < 10_000 {
			continue
		}
		n.Add("last\nof all")
	}
	n.Flush(tooLong)
	if !bytes.HasPrefix(read, []byte("tcpshift: xxx")) || !bytes.Contains(read[:size], []byte(" messages could not be written here\n")) {
		t.Errorf("the messages are %.100q and so on", read[:size])
	}
}
