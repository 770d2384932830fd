package output

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// frozenDisk makes a file system and returns its directory, and what freezes and thaws it.
func frozenDisk(t *testing.T) (dir string, freeze, thaw func()) {
	t.Helper()
	missing := func(why string, err error) {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s: %v", why, err)
		}
		t.Skipf("%s: %v", why, err)
	}
	if os.Geteuid() != 0 {
		missing("needs root", nil)
	}
	base := t.TempDir()
	image, dir := filepath.Join(base, "image"), filepath.Join(base, "disk")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 64<<20); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{{"mkfs.ext4", "-q", "-F", image}, {"mount", "-o", "loop", image, dir}} {
		if err := exec.Command(command[0], command[1:]...).Run(); err != nil {
			missing("needs a loop device with ext4", err)
		}
	}
	const fifreeze, fithaw = 0xc0045877, 0xc0045878 // linux/fs.h
	request := func(number uint) {
		f, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := unix.IoctlSetInt(int(f.Fd()), number, 0); err != nil {
			t.Errorf("freeze or thaw: %v", err)
		}
	}
	t.Cleanup(func() { // lazily: what the test has written may still be on its way
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir, func() { request(fifreeze) }, func() { request(fithaw) }
}

// A spool on a disk that does not answer is as one that is full: nothing that the loop calls waits, the queue
// becomes full, alerts have their reserve, and the end does not wait either. When the disk answers again, the
// reader gets everything.
func TestSpool_FrozenDisk(t *testing.T) {
	dir, freeze, thaw := frozenDisk(t)
	l := listenTCP(t)
	address := l.Addr().(*net.TCPAddr)
	l.Close()
	q, _ := remoteTo(t, Remote{Network: "tcp", Address: address.String(), Spool: spoolIn(t, filepath.Join(dir, "spool"), 32<<20)})
	put(t, q, "first\n")
	eventually(t, "line in the spool", func() bool { used, _ := q.Spooled(); return used > 0 })
	freeze()
	frozen := true
	defer func() {
		if frozen {
			thaw()
		}
	}()
	var all strings.Builder
	all.WriteString("first\n")
	mustReturn(t, "the loop's part", func() {
		for lines := numberedLines(1000); !q.Full(); {
			put(t, q, lines)
			all.WriteString(lines)
		}
		_, _ = q.Spooled()
		if q.Room() <= 0 {
			t.Error("alerts have no reserve")
		}
		put(t, q, "an alert\n")
		all.WriteString("an alert\n")
	})
	thaw()
	frozen = false
	l, err := net.ListenTCP("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn := accept(t, l)
	if got := strings.Join(linesOf(t, conn, "an alert\n"), ""); got != all.String() {
		t.Errorf("%d bytes came, want %d", len(got), all.Len())
	}
}

// The end does not wait for a spool on a disk that does not answer, and reports what is not written.
func TestSpool_FrozenDiskAtEnd(t *testing.T) {
	dir, freeze, thaw := frozenDisk(t)
	out, err := OpenRemote(t.Context(), Remote{Network: "tcp", Address: "127.0.0.1:1", Notify: func(string) {}, Spool: spoolIn(t, filepath.Join(dir, "spool"), 32<<20)})
	if err != nil {
		t.Fatal(err)
	}
	q := NewQueue(out, limit, func(string) {})
	freeze()
	put(t, q, "a line\n")
	q.Abandon()
	mustReturn(t, "the end", func() {
		if err := q.Drain(); err == nil {
			t.Error("Drain reports no failure")
		}
		if q.Close() {
			t.Error("Close says that the goroutine has ended")
		}
	})
	thaw()
	eventually(t, "end of the goroutine", func() bool { q.mu.Lock(); defer q.mu.Unlock(); return q.ended })
	_ = out.Close()
}
