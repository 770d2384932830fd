package cli_test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// endLimit is what docs/output.md promises from the first signal on.
const endLimit = 5 * time.Second

// awaitEnd waits until the main thread has exited, without waiting for other threads: the
// kernel may have one until a disk gives its write back.
func (tr *tracer) awaitEnd(since time.Time) {
	tr.t.Helper()
	for {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", tr.cmd.Process.Pid))
		_, after, _ := bytes.Cut(stat, []byte(") "))
		if err != nil || bytes.HasPrefix(after, []byte("Z")) || bytes.HasPrefix(after, []byte("X")) {
			return
		}
		if time.Since(since) > endLimit {
			tr.t.Errorf("the tracer runs %v after the first signal, want it ended", time.Since(since))
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// awaitStartIn waits for the start record in a file.
func (tr *tracer) awaitStartIn(path string) {
	tr.t.Helper()
	awaitFile(tr.t.(*testing.T), path).Close()
	content, err := os.ReadFile(path)
	if err != nil {
		tr.t.Fatal(err)
	}
	line, _, _ := bytes.Cut(content, []byte("\n"))
	tr.started = string(line)
}

// openLinks returns the links of the tracer's programs. What else is open, such as a map, may
// stay as long as the kernel has a thread of the process.
func openLinks(t *testing.T, tr *tracer) map[object]bool {
	t.Helper()
	links := openObjects(t, tr)
	maps.DeleteFunc(links, func(o object, _ bool) bool { return o.kind != "link_id" })
	return links
}

// frozenDisk is a file system of its own that can be frozen.
type frozenDisk struct {
	t      *testing.T
	dir    string
	frozen bool
}

func newDisk(t *testing.T) *frozenDisk {
	t.Helper()
	requireRoot(t)
	mkfs := lookPath(t, "mkfs.ext4")
	base := t.TempDir()
	image, dir := filepath.Join(base, "image"), filepath.Join(base, "disk")
	f, err := os.Create(image)
	if err == nil {
		err = f.Truncate(32 << 20)
		f.Close()
	}
	if err == nil {
		err = os.Mkdir(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{{mkfs, "-q", "-F", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			skipMissing(t, fmt.Sprintf("needs a loop device with ext4: %v: %s", err, out))
		}
	}
	d := &frozenDisk{t: t, dir: dir}
	t.Cleanup(func() {
		d.thaw()
		for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
			err := unix.Unmount(dir, 0)
			if err == nil {
				return
			}
			if time.Since(began) > waitLimit {
				t.Errorf("unmount %s: %v", dir, err)
				return
			}
		}
	})
	return d
}

// FIFREEZE and FITHAW of linux/fs.h
const freeze, thaw = 0xc0045877, 0xc0045878

func (d *frozenDisk) request(number uint) {
	d.t.Helper()
	dir, err := os.Open(d.dir)
	if err != nil {
		d.t.Fatal(err)
	}
	defer dir.Close()
	if err := unix.IoctlSetInt(int(dir.Fd()), number, 0); err != nil {
		d.t.Fatalf("freeze or thaw %s: %v", d.dir, err)
	}
}

func (d *frozenDisk) freeze() {
	d.t.Helper()
	d.request(freeze)
	d.frozen = true
}

func (d *frozenDisk) thaw() {
	if d.frozen {
		d.frozen = false
		d.request(thaw)
	}
}

var notWritten = regexp.MustCompile(`^tcpshift: [1-9]\d* bytes of output were not written: the reader or the disk did not take them in time\n$`)

// A frozen disk does not keep the tracer: it ends within 5 seconds of the first signal, with
// its programs detached, although the kernel has its thread until the disk is thawed. The file
// has whole lines.
func TestHang_FrozenDisk(t *testing.T) {
	d := newDisk(t)
	path := filepath.Join(d.dir, "records")
	// Not to this process through a pipe: that would be closed with the last thread.
	stderr, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	tr := launch(t, flags("--only", "stats", "--stats-interval", "1ms", "--output", path), func(cmd *exec.Cmd) { cmd.Stderr = stderr })
	t.Cleanup(d.thaw)
	tr.awaitStartIn(path)
	links := openLinks(t, tr)
	d.freeze()
	began := time.Now()
	for !isInSystemCall(t, tr.cmd.Process.Pid, unix.SYS_WRITE, 2, 0) && time.Since(began) < 200*time.Millisecond {
		time.Sleep(10 * time.Millisecond)
	}
	tr.signal(syscall.SIGTERM)
	tr.awaitEnd(time.Now())
	mustBeGone(t, links)
	if text, err := os.ReadFile(stderr.Name()); err != nil || !notWritten.Match(text) {
		t.Errorf("standard error is %q, %v; want %v", text, err, notWritten)
	}
	d.thaw()
	r := tr.waitUnread()
	r.mustEnd(t, 1)
	content, err := os.ReadFile(path)
	if err != nil || !bytes.HasSuffix(content, []byte("\n")) {
		t.Errorf("the file ends with %q, %v", content[max(0, len(content)-80):], err)
	}
}

// A second signal ends the tracer at once although its disk is frozen.
func TestHang_FrozenDiskSecondSignal(t *testing.T) {
	d := newDisk(t)
	path := filepath.Join(d.dir, "records")
	tr := launch(t, flags("--only", "stats", "--stats-interval", "1ms", "--output", path), func(cmd *exec.Cmd) { cmd.Stderr = nil })
	t.Cleanup(d.thaw)
	tr.awaitStartIn(path)
	links := openLinks(t, tr)
	d.freeze()
	time.Sleep(100 * time.Millisecond)
	tr.signal(syscall.SIGTERM)
	time.Sleep(300 * time.Millisecond)
	second := time.Now()
	tr.signal(syscall.SIGTERM)
	tr.awaitEnd(second)
	if took := time.Since(second); took > 2*time.Second {
		t.Errorf("it ends %v after the second signal, want it at once", took)
	}
	mustBeGone(t, links)
	d.thaw()
	if r := tr.waitUnread(); r.signal != syscall.SIGTERM {
		t.Errorf("want an end by SIGTERM\n%v", r)
	}
}

// A disk that is frozen already does not keep the tracer at its start.
func TestHang_FrozenDiskAtStart(t *testing.T) {
	d := newDisk(t)
	for _, command := range [][]string{nil, {"snapshot"}} {
		path := filepath.Join(d.dir, "records"+strings.Join(command, ""))
		stderr, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { stderr.Close() })
		d.freeze()
		tr := launch(t, append(command, "--output", path), func(cmd *exec.Cmd) { cmd.Stderr = stderr })
		t.Cleanup(d.thaw)
		time.Sleep(200 * time.Millisecond)
		tr.signal(syscall.SIGTERM)
		tr.awaitEnd(time.Now())
		d.thaw()
		tr.waitUnread().mustEnd(t, 1)
		want := "tcpshift: --output: open " + path + ": it takes too long: stopped waiting at SIGTERM\n"
		if text, err := os.ReadFile(stderr.Name()); err != nil || string(text) != want {
			t.Errorf("standard error is %q, %v; want %q", text, err, want)
		}
	}
}

// A reader that reads nothing does not keep the tracer: each signal that ends it does so within
// 5 seconds. Its programs are detached, and the bytes that were not written are counted.
func TestHang_StalledReader(t *testing.T) {
	requireRoot(t)
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			tr := blockedTracer(t)
			opened := openObjects(t, tr)
			began := time.Now()
			tr.signal(s)
			tr.awaitEnd(began)
			r := tr.waitUnread()
			r.mustEnd(t, 1)
			mustBeGone(t, opened)
			if !notWritten.MatchString(r.stderr) {
				t.Errorf("want %v\n%v", notWritten, r)
			}
		})
	}
}

// Standard output and standard error may be one pipe that nobody reads.
func TestHang_StalledStandardError(t *testing.T) {
	requireRoot(t)
	tr := blockedTracer(t, func(cmd *exec.Cmd) { cmd.Stderr = cmd.Stdout })
	tr.signal(syscall.SIGUSR1) // this has a message
	began := time.Now()
	tr.signal(syscall.SIGTERM)
	tr.awaitEnd(began)
	tr.waitUnread().mustEnd(t, 1)
}

// A snapshot whose reader reads nothing ends, too. Other commands end at once.
func TestHang_OtherCommands(t *testing.T) {
	requireRoot(t)
	openDescriptors(t, 1) // a process of this test
	for _, tt := range []struct {
		args   []string
		status int // -1: by the signal
	}{{flags("snapshot"), 1}, {flags("explain", "CLOSE"), -1}, {flags("doctor"), -1}} {
		t.Run(tt.args[0], func(t *testing.T) {
			t.Parallel()
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			defer w.Close()
			fill := make([]byte, 1<<16)
			if n, err := w.Write(fill); n != len(fill) || err != nil {
				t.Fatal(n, err)
			}
			tr := launch(t, tt.args, withStdout(w))
			time.Sleep(1500 * time.Millisecond) // it has nowhere to write
			began := time.Now()
			tr.signal(syscall.SIGTERM)
			tr.awaitEnd(began)
			res := tr.waitUnread()
			res.mustEnd(t, tt.status)
			if tt.status == 1 && !strings.Contains(res.stderr, "stopped by SIGTERM: the list of sockets ends after 0 bytes and is not complete") {
				t.Errorf("want a message that names the signal\n%v", res)
			}
		})
	}
}

// A process that shares standard output makes it nonblocking, and the reader stalls: the stream
// goes on afterwards, complete, on a pipe, a socket and a terminal.
func TestOutput_SharedNonblocking(t *testing.T) {
	requireRoot(t)
	for _, kind := range []string{"pipe", "socket", "terminal"} {
		t.Run(kind, func(t *testing.T) {
			ours, theirs := outputPair(t, kind)
			n, args := stormNamespace(t)
			tr := launch(t, args, withStdout(theirs))
			tr.out = ours
			tr.lines.Reset(ours)
			tr.awaitStart()
			if err := unix.SetNonblock(int(theirs.Fd()), true); err != nil {
				t.Fatal(err)
			}
			runStorm(t, n) // of which nobody reads a record
			time.Sleep(time.Second)
			tr.signal(syscall.SIGTERM)
			theirs.Close()
			if s := tr.end("signal"); s.last().LostQueue == 0 {
				t.Errorf("want lost records, the reader has stalled: %s", s.last().line)
			}
		})
	}
}

// outputPair makes an output of that kind and its other end, which can be read with a deadline.
func outputPair(t *testing.T, kind string) (ours, theirs *os.File) {
	t.Helper()
	switch kind {
	case "socket":
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil || unix.SetNonblock(pair[0], true) != nil {
			t.Fatal(err)
		}
		ours, theirs = os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	case "terminal":
		ours, theirs = openPTY(t)
		settings, err := unix.IoctlGetTermios(int(theirs.Fd()), unix.TCGETS)
		if err == nil {
			settings.Oflag, settings.Lflag = 0, 0
			err = unix.IoctlSetTermios(int(theirs.Fd()), unix.TCSETS, settings)
		}
		if err != nil {
			t.Fatal(err)
		}
	default:
		var err error
		if ours, theirs, err = os.Pipe(); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return ours, theirs
}
