package output

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func rotating(t *testing.T, path string, r Rotation) Output {
	t.Helper()
	r.Notify = func(message string) { t.Errorf("it notifies: %s", message) }
	file, err := Open(t.Context(), path, false)
	if err != nil {
		t.Fatal(err)
	}
	out, err := Rotate(file, r)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// allOf is the content of the old files of path, the oldest first, and of path itself.
func allOf(t *testing.T, path string) (files []string) {
	t.Helper()
	paths, err := filepath.Glob(path + ".*")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(paths)
	for _, each := range append(paths, path) {
		f, err := os.Open(each)
		if err != nil {
			t.Fatal(err)
		}
		var r io.Reader = f
		if strings.HasSuffix(each, ".gz") {
			if r, err = gzip.NewReader(f); err != nil {
				t.Fatal(err)
			}
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatalf("%s: %v", each, err)
		}
		if info, err := f.Stat(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has the mode %v, want 0600", each, info.Mode())
		}
		f.Close()
		files = append(files, string(b))
	}
	return files
}

// Every line is in one of the files, which have whole lines, no more than their size, and their header.
func TestRotation_BySize(t *testing.T) {
	for _, compress := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "records")
		out := rotating(t, path, Rotation{Size: 1000, Keep: 1000, Compress: compress, Header: []byte("HEADER\n")})
		var want strings.Builder
		for i := range 200 {
			batch := strings.Repeat(fmt.Sprintf("line %d of some\n", i), 1+i%90)
			want.WriteString(batch)
			write(t, out, batch)
		}
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
		tidied := rotating(t, path, Rotation{Size: 1000, Keep: 1000, Compress: compress})
		tidied.(*rotatingFile).old.finish()
		if err := tidied.Close(); err != nil {
			t.Fatal(err)
		}
		files := allOf(t, path)
		for i, text := range files {
			body, found := strings.CutPrefix(text, "HEADER\n")
			if found != (i > 0) || len(text) > 1000 || !strings.HasSuffix(text, "\n") {
				t.Errorf("file %d has %d bytes, header %v", i, len(text), found)
			}
			files[i] = body
		}
		if strings.Join(files, "") != want.String() {
			t.Error("the files do not have all lines in their order")
		}
		plain, _ := filepath.Glob(path + ".*Z")
		if compress != (len(plain) == 0) {
			t.Errorf("compress %v: %d files are not compressed", compress, len(plain))
		}
	}
}

// Only the newest old files stay, and a rotation by age begins a new file.
func TestRotation_KeepAndAge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records")
	other := filepath.Join(filepath.Dir(path), "records.of-somebody")
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	out := rotating(t, path, Rotation{Age: time.Nanosecond, Keep: 3})
	for i := range 10 {
		write(t, out, fmt.Sprintf("line %d\n", i))
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	if err := rotating(t, path, Rotation{Keep: 3}).Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(other); err != nil {
		t.Fatalf("a file of another name: %v", err)
	}
	want := []string{"line 6\n", "line 7\n", "line 8\n", "line 9\n"}
	if files := allOf(t, path); !slices.Equal(files, want) {
		t.Errorf("the files have %q, want %q", files, want)
	}
}

// What a crash during compression has left is put in order: each line stays once.
func TestRotation_AfterCrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records")
	first, second := path+".20260101T000000.000000001Z", path+".20260101T000000.000000002Z"
	for name, text := range map[string]string{first: "a\n", second: "b\n", first + ".gz.part": "half"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.OpenFile(second+".gz", os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	w := gzip.NewWriter(f)
	fmt.Fprint(w, "b\n")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := rotating(t, path, Rotation{Keep: 5, Compress: true}).Close(); err != nil {
		t.Fatal(err)
	}
	if files := allOf(t, path); !slices.Equal(files, []string{"a\n", "b\n", ""}) {
		t.Errorf("the files have %q, want each line once", files)
	}
}

// A file that cannot be replaced keeps its name and gets the lines; it is rotated once that is possible.
func TestRotation_NoNewFile(t *testing.T) {
	directory := smallTmpfs(t)
	limitInodes := func(limit int) { // the directory itself is one of them
		t.Helper()
		if err := unix.Mount("", directory, "", unix.MS_REMOUNT, fmt.Sprintf("nr_inodes=%d", limit)); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(directory, "records")
	file, err := Open(t.Context(), path, false)
	if err != nil {
		t.Fatal(err)
	}
	var messages []string
	out, err := Rotate(file, Rotation{Size: 10, Keep: 5, Notify: func(m string) { messages = append(messages, m) }})
	if err != nil {
		t.Fatal(err)
	}
	limitInodes(2)
	write(t, out, "line 1\n")
	write(t, out, "line 2\n")
	if files := allOf(t, path); !slices.Equal(files, []string{"line 1\nline 2\n"}) || len(messages) != 1 {
		t.Errorf("the files have %q after the messages %q, want one file and one message", files, messages)
	}
	limitInodes(5)
	out.(*rotatingFile).next = time.Time{} // rotationRetry is over
	write(t, out, "line 3\n")
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	if files := allOf(t, path); !slices.Equal(files, []string{"line 1\nline 2\n", "line 3\n"}) || len(messages) != 1 {
		t.Errorf("the files have %q after the messages %q, want a second file and no more messages", files, messages)
	}
}

// A file whose last line is cut is not rotated, however often the write of the rest fails.
func TestRotation_CutLine(t *testing.T) {
	out := rotating(t, filepath.Join(t.TempDir(), "records"), Rotation{Size: 10, Keep: 5}).(*rotatingFile)
	write(t, out, "line 1\n")
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	out.midLine = true // truncateTail has failed
	fd := out.fd
	out.fd = int(full.Fd())
	for range 2 {
		if n, err := out.try([]byte("the rest\n")); n != 0 || !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("a write to a full disk returned %d, %v", n, err)
		}
	}
	out.fd = fd
	write(t, out, "the rest\n")
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	if files := allOf(t, out.path); len(files) != 1 {
		t.Errorf("the files have %q: the line is cut in two", files)
	}
}
