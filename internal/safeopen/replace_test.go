package safeopen

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func fillWith(text string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, text)
		return err
	}
}

// mustHave checks the content of a file, its permissions, and that nothing else is in its directory.
func mustHave(t *testing.T, path, text string, permissions os.FileMode) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(b) != text || info.Mode() != permissions {
		t.Errorf("%s has %q and mode %v, want %q and %v", path, b, info.Mode(), text, permissions)
	}
	names, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if strings.HasPrefix(n.Name(), ".") {
			t.Errorf("%s is left behind", n.Name())
		}
	}
}

// A new file gets the permissions less the umask. One that exists is replaced, and keeps its permissions.
func TestReplace_NewAndExisting(t *testing.T) {
	defer unix.Umask(unix.Umask(0o027))
	path := filepath.Join(t.TempDir(), "page")
	if err := Replace(path, 0o644, fillWith("one")); err != nil {
		t.Fatal(err)
	}
	mustHave(t, path, "one", 0o640)
	if err := os.Chmod(path, 0o606); err != nil {
		t.Fatal(err)
	}
	before, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	if err := Replace(path, 0o644, fillWith("two")); err != nil {
		t.Fatal(err)
	}
	mustHave(t, path, "two", 0o606)
	if b, err := io.ReadAll(before); err != nil || string(b) != "one" {
		t.Errorf("who had the old file open reads %q, %v", b, err)
	}
}

// If the file cannot be filled, the old one stays as it was, and nothing is left behind.
func TestReplace_Fails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "page")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("no")
	err := Replace(path, 0o644, func(w io.Writer) error {
		_, _ = io.WriteString(w, "half") // only the second error counts
		return broken
	})
	if !errors.Is(err, broken) {
		t.Errorf("the error is %v", err)
	}
	mustHave(t, path, "old", 0o600)
}

// What another user may have put at the path is neither written nor replaced.
func TestReplace_Refused(t *testing.T) {
	for name, put := range map[string]func(path, other string) error{
		"symbolic link": func(path, other string) error { return os.Symlink(other, path) },
		"hard link":     func(path, other string) error { return os.Link(other, path) },
		"FIFO":          func(path, _ string) error { return unix.Mkfifo(path, 0o600) },
		"directory":     func(path, _ string) error { return os.Mkdir(path, 0o700) },
		"other user's": func(path, _ string) error {
			return errors.Join(os.WriteFile(path, nil, 0o666), os.Chown(path, 65534, 65534))
		},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "other user's" && os.Getuid() != 0 {
				t.Skip("needs root to make a file of another user")
			}
			dir := t.TempDir()
			path, other := filepath.Join(dir, "page"), filepath.Join(dir, "other")
			if err := os.WriteFile(other, []byte("precious"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := put(path, other); err != nil {
				t.Fatal(err)
			}
			if err := Replace(path, 0o644, fillWith("page")); !errors.Is(err, ErrRefused) {
				t.Errorf("the error is %v", err)
			}
			mustHave(t, other, "precious", 0o600)
		})
	}
}

// Files, FIFOs and inherited descriptors are read; nothing else is opened.
func TestRead_Kinds(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(path, []byte("text"), 0o600), os.Symlink(path, link)); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := w.WriteString("text"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{path, link, "/dev/fd/" + descriptorOf(r)} {
		f, err := Read(path)
		if err != nil {
			t.Error(err)
			continue
		}
		if b, err := io.ReadAll(f); err != nil || string(b) != "text" {
			t.Errorf("%s: %q, %v", path, b, err)
		}
		f.Close()
	}
	for _, path := range []string{dir, "/dev/mem", "/dev/rtc0"} {
		if _, err := os.Stat(path); err != nil {
			continue // not every host has these devices
		}
		if _, err := Read(path); !errors.Is(err, ErrOtherKind) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func descriptorOf(f *os.File) string { return strconv.Itoa(int(f.Fd())) }
