package output

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// numberedLines have different lengths, so that pages and limits end within lines.
func numberedLines(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%d:%s\n", i, strings.Repeat("x", i%97))
	}
	return b.String()
}

// checkWholeLines checks that the file has the beginning of what was written, up to
// the end of a line, and as many bytes as Write returned.
func checkWholeLines(t *testing.T, path, written string, claimed int) {
	t.Helper()
	got := content(t, path)
	if !strings.HasPrefix(written, got) {
		t.Fatalf("the file of %d bytes does not have the beginning of what was written", len(got))
	}
	if !strings.HasSuffix(got, "\n") {
		t.Errorf("the file ends in %q, want a whole line", got[max(0, len(got)-50):])
	}
	if len(got) != claimed {
		t.Errorf("the file has %d bytes, and Write has returned %d", len(got), claimed)
	}
}

// writeUntilFull returns what was written, and the number of bytes that Write returned.
func writeUntilFull(t *testing.T, o Output, before string, want error) (written string, claimed int) {
	t.Helper()
	written, claimed = before, len(before)
	lines := numberedLines(300)
	for range 1000 {
		n, err := o.Write([]byte(lines))
		written += lines
		claimed += n
		if err == nil {
			continue
		}
		if !errors.Is(err, want) {
			t.Fatalf("the error is %v, want %v", err, want)
		}
		return written, claimed
	}
	t.Fatalf("%d bytes fit, want %v before", claimed, want)
	return "", 0
}

// smallTmpfs mounts a tmpfs of 64 KiB in a mount namespace of this thread. It ends with the
// test. The path leads to it from other threads, too.
func smallTmpfs(t *testing.T) string {
	t.Helper()
	return limitedTmpfs(t, "size=64k")
}

// limitedTmpfs is smallTmpfs with other options.
func limitedTmpfs(t *testing.T, options string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		const why = "mounting a small file system needs root"
		if os.Getenv("CI") == "true" {
			t.Fatal(why + ", and CI=true wants every test to run")
		}
		t.Skip(why)
	}
	directory := t.TempDir()
	runtime.LockOSThread() // never unlocked, so that the thread ends with the test's goroutine
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		t.Fatalf("make a mount namespace: %v", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatalf("make mounts private: %v", err)
	}
	if err := unix.Mount("tmpfs", directory, "tmpfs", 0, options); err != nil {
		t.Fatalf("mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(directory, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return fmt.Sprintf("/proc/self/task/%d/root%s", unix.Gettid(), directory)
}

// A write to a full disk leaves whole lines only, and returns as many bytes as the file
// has got.
func TestFile_FullDisk(t *testing.T) {
	path := filepath.Join(smallTmpfs(t), "records")
	const before = "from the run before\n"
	if err := os.WriteFile(path, []byte(before), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := Open(t.Context(), path, false)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	written, claimed := writeUntilFull(t, o, before, unix.ENOSPC)
	checkWholeLines(t, path, written, claimed)
	if claimed <= len(before) {
		t.Errorf("the file has %d bytes, want some of this run", claimed)
	}
}

// limitFileSize sets RLIMIT_FSIZE in bytes until the test ends.
func limitFileSize(t *testing.T, limit uint64) {
	t.Helper()
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	after := before
	after.Cur = limit
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &after); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &before); err != nil {
			t.Fatal(err)
		}
	})
}

// A file size limit at any byte of a line leaves whole lines only.
func TestFile_SizeLimit(t *testing.T) {
	const before, lines = "kept\n", "first line\nsecond line\n"
	for limit := len(before); limit < len(before)+len(lines); limit++ {
		t.Run(fmt.Sprintf("%d bytes", limit), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "records")
			if err := os.WriteFile(path, []byte(before), 0o600); err != nil {
				t.Fatal(err)
			}
			o := open(t, path)
			limitFileSize(t, uint64(limit))
			n, err := o.Write([]byte(lines))
			if !errors.Is(err, unix.EFBIG) {
				t.Errorf("the error is %v, want %v", err, unix.EFBIG)
			}
			checkWholeLines(t, path, before+lines, len(before)+n)
		})
	}
}

// Standard output may be a file that other processes write to before and after, without
// O_APPEND, as in ( tcpshift; echo done ) >file. After a write that was cut off, the
// next process leaves no gap.
func TestFile_SharedOffset(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records")
	shared, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer shared.Close()
	o := outputTo(t, shared)
	t.Run("with the limit", func(t *testing.T) {
		limitFileSize(t, 16)
		if n, err := o.Write([]byte("first line\nsecond line\n")); n != 11 || !errors.Is(err, unix.EFBIG) {
			t.Fatalf("Write returns %d, %v; want 11 and %v", n, err, unix.EFBIG)
		}
	})
	if _, err := shared.WriteString("done\n"); err != nil {
		t.Fatal(err)
	}
	if got, want := content(t, path), "first line\ndone\n"; got != want {
		t.Errorf("the file contains %q, want %q", got, want)
	}
}

// The beginning of a line is not truncated if another process has appended to the file
// in the meantime.
func TestFile_TruncatesOwnTailOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records")
	o := open(t, path)
	write(t, o, "ours\nhal")
	other, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := other.WriteString("theirs\n"); err != nil {
		t.Fatal(err)
	}
	if err := o.(*regularFile).truncateTail(3); err != nil {
		t.Errorf("truncating returns %v, want nil", err)
	}
	if got, want := content(t, path), "ours\nhaltheirs\n"; got != want {
		t.Errorf("the file contains %q, want %q", got, want)
	}
}
