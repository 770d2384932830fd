package cli_test

import (
	"bytes"
	"crypto/rand"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A file system that finds an error and becomes read-only ends the run with the cause, and the
// file has whole lines.
func TestHostile_ReadOnlyDisk(t *testing.T) {
	d := newDisk(t)
	device := loopOf(t, d.dir)
	trigger := "/sys/fs/ext4/" + device + "/trigger_fs_error"
	if _, err := os.Stat(trigger); err != nil {
		t.Skip("needs trigger_fs_error of ext4")
	}
	if out, err := exec.Command("mount", "-o", "remount,errors=remount-ro", d.dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	path := filepath.Join(d.dir, "records")
	tr := launch(t, flags("--only", "stats", "--stats-interval", "1ms", "--output", path))
	tr.awaitStartIn(path)
	attached := openLinks(t, tr)
	writeTo(t, trigger, "the test makes it read-only")
	r := tr.waitUnread()
	r.mustEnd(t, 1)
	if !strings.Contains(r.stderr, "write "+path+": ") {
		t.Errorf("want the cause\n%v", r)
	}
	mustBeGone(t, attached)
	if content, err := os.ReadFile(path); err != nil || !bytes.HasSuffix(content, []byte("\n")) {
		t.Errorf("the file ends with %q, %v", content[max(0, len(content)-80):], err)
	}
}

// loopOf returns the name of the loop device that is mounted at a directory.
func loopOf(t *testing.T, dir string) string {
	t.Helper()
	out, err := exec.Command("findmnt", "-n", "-o", "SOURCE", dir).Output()
	if err != nil {
		t.Fatalf("findmnt: %v", err)
	}
	return filepath.Base(strings.TrimSpace(string(out)))
}

// What a reader sends has no effect: into standard input, or back through a socket. Then it
// stalls, and it dies; the run ends in order.
func TestHostile_GarbageFromTheReader(t *testing.T) {
	requireRoot(t)
	ours, theirs := outputPair(t, "socket")
	garbage, feed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer garbage.Close()
	go func() {
		_, _ = io.CopyN(feed, rand.Reader, 1<<20)
		feed.Close()
	}()
	tr := launch(t, flags("--stats-interval", "1ms", "--only", "stats"), withStdout(theirs), func(cmd *exec.Cmd) { cmd.Stdin = garbage })
	tr.out = ours
	tr.lines.Reset(ours)
	theirs.Close()
	tr.awaitStart()
	for range 50 {
		junk := make([]byte, 4096)
		_, _ = rand.Read(junk)
		_ = ours.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
		_, _ = ours.Write(junk)
		tr.next()
	}
	attached := openObjects(t, tr)
	time.Sleep(300 * time.Millisecond) // it reads nothing
	ours.Close()
	began := time.Now()
	tr.awaitEnd(began)
	r := tr.waitUnread()
	r.mustEnd(t, 0)
	r.mustPrintError(t, "")
	mustBeGone(t, attached)
}

// A reader that stops in the middle of a line and dies, again and again, leaves nothing behind.
func TestHostile_ReaderDies(t *testing.T) {
	requireRoot(t)
	before := links(t)
	for n := range 2 {
		tr := startTracer(t, flags("--stats-interval", "1ms", "--only", "stats"))
		_, _ = tr.out.Read(make([]byte, 10+n))
		tr.out.Close()
		tr.waitUnread().mustEnd(t, 0)
	}
	mustBeGone(t, newLinks(t, before))
}
