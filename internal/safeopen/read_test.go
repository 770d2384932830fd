package safeopen

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// ReadFileUpTo reads a file up to its limit, and no larger one.
func TestReadFileUpTo_Limit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := ReadFileUpTo(path, 5); err != nil || string(b) != "12345" {
		t.Errorf("got %q, %v", b, err)
	}
	if b, err := ReadFileUpTo(path, 4); !errors.Is(err, ErrTooLarge) || b != nil {
		t.Errorf("a byte too many: got %q, %v", b, err)
	}
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	err := withinTime(t, func() error {
		_, err := ReadFileUpTo(fifo, 5)
		return err
	})
	if !errors.Is(err, ErrOtherKind) {
		t.Errorf("a FIFO: got %v", err)
	}
}

// DirNames lists a directory up to its limit, and follows no link to one.
func TestDirNames_LimitAndLink(t *testing.T) {
	dir := t.TempDir()
	if names, err := DirNames(dir, 10); err != nil || len(names) != 0 {
		t.Errorf("an empty directory: got %v, %v", names, err)
	}
	for i := range 3 {
		if err := os.Mkdir(filepath.Join(dir, strconv.Itoa(i)), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for limit, want := range map[int]int{2: 2, 3: 3, 10: 3} {
		if names, err := DirNames(dir, limit); err != nil || len(names) != want {
			t.Errorf("at most %d: got %v, %v", limit, names, err)
		}
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if names, err := DirNames(link, 10); err == nil {
		t.Errorf("a link: got %v", names)
	}
	if names, err := DirNames(filepath.Join(dir, "none"), 10); err == nil {
		t.Errorf("no directory: got %v", names)
	}
}
