package safeopen

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// ReadTrusted reads a file, also through a link, up to its limit. It reads none that another user may change.
func TestReadTrusted_WhoMayChangeIt(t *testing.T) {
	dir := t.TempDir()
	path, link, fifo := filepath.Join(dir, "file"), filepath.Join(dir, "link"), filepath.Join(dir, "fifo")
	mustDo(t, os.WriteFile(path, []byte("12345"), 0o600), os.Chmod(path, 0o644), os.Symlink(path, link), unix.Mkfifo(fifo, 0o600))
	for _, each := range []string{path, link} {
		if b, err := ReadTrusted(each, 5); err != nil || string(b) != "12345" {
			t.Errorf("%s: got %q, %v", each, b, err)
		}
	}
	if _, err := ReadTrusted(path, 4); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a byte too many: got %v", err)
	}
	if _, err := ReadTrusted(fifo, 5); !errors.Is(err, ErrOtherKind) {
		t.Errorf("a FIFO: got %v", err)
	}
	for mode, want := range map[os.FileMode]string{
		0o664: link + " may be changed by other users (mode 0664)",
		0o646: link + " may be changed by other users (mode 0646)",
	} {
		mustDo(t, os.Chmod(path, mode))
		if _, err := ReadTrusted(link, 5); !errors.Is(err, ErrRefused) || err.Error() != want {
			t.Errorf("mode %o: got %v, want %s", mode, err, want)
		}
	}
	needRoot(t)
	mustDo(t, os.Chmod(path, 0o644), os.Chown(path, nobody, 0))
	if _, err := ReadTrusted(path, 5); !errors.Is(err, ErrRefused) || err.Error() != path+" belongs to another user (uid 65534)" {
		t.Errorf("the file of another user: got %v", err)
	}
}
