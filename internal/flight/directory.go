package flight

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"
)

const (
	// maxFiles and maxBytes bound the files of a directory, in number and in bytes together. The oldest are removed.
	maxFiles = 10
	maxBytes = 1 << 30
	// timeFormat begins the name of each file, so that the names are in the order of time.
	timeFormat = "20060102T150405.000000000Z"
)

// fileName matches the files of a recorder, and those that it had not finished when it was killed. Files with other
// names are not touched.
var fileName = regexp.MustCompile(`^\d{8}T\d{6}\.\d{9}Z-[a-z0-9_]+\.ndjson(\.part)?$`)

// directory is where the files are. It is for one goroutine.
type directory struct {
	root *os.Root
}

type file struct {
	name string
	size int64
}

// list returns the files whose names match fileName, the oldest first.
func (d *directory) list() (files []file, err error) {
	dir, err := d.root.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	entries, err := dir.ReadDir(-1)
	for _, e := range entries {
		if !e.Type().IsRegular() || !fileName.MatchString(e.Name()) {
			continue
		}
		if info, err := d.root.Lstat(e.Name()); err == nil {
			files = append(files, file{e.Name(), info.Size()})
		}
	}
	slices.SortFunc(files, func(a, b file) int { return cmp.Compare(a.name, b.name) })
	return files, err
}

// makeRoom removes the oldest files until one more file of size bytes fits. It neither removes nor counts the file with
// the name except. It fails if size is more than maxBytes.
func (d *directory) makeRoom(size int64, except string) error {
	if size > maxBytes {
		return fmt.Errorf("a file of more than %d MiB has no room", maxBytes>>20)
	}
	files, err := d.list()
	files = slices.DeleteFunc(files, func(f file) bool { return f.name == except })
	total := size
	for _, f := range files {
		total += f.size
	}
	for len(files) > 0 && (len(files) >= maxFiles || total > maxBytes) {
		if removeErr := d.root.Remove(files[0].name); removeErr != nil && !errors.Is(removeErr, fs.ErrNotExist) {
			return errors.Join(err, removeErr)
		}
		total -= files[0].size
		files = files[1:]
	}
	return err
}

// removeParts removes the files that a recorder had not finished when it was killed.
func (d *directory) removeParts() error {
	files, err := d.list()
	for _, f := range files {
		if filepath.Ext(f.name) == ".part" {
			err = errors.Join(err, d.root.Remove(f.name))
		}
	}
	return err
}

// create makes a file with mode 0600, whose content write writes. The file has the suffix .part until it is complete. If
// anything fails, create removes the file.
func (d *directory) create(at time.Time, reason string, write func(w *Writer) error) (name string, err error) {
	name = at.UTC().Format(timeFormat) + "-" + reason + ".ndjson"
	part := name + ".part"
	if err := d.makeRoom(0, part); err != nil {
		return name, err
	}
	f, err := d.root.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return name, err
	}
	w := &Writer{file: f, directory: d, part: part}
	err = errors.Join(write(w), f.Close())
	if err == nil {
		err = d.root.Rename(part, name)
	}
	if err != nil {
		err = errors.Join(err, d.root.Remove(part))
	}
	return name, err
}

// Writer writes to a file, and removes older files of the directory if it needs their room.
type Writer struct {
	file      *os.File
	directory *directory
	part      string
	size      int64
}

// Write writes whole lines. It fails without writing if the file would be larger than maxBytes.
func (w *Writer) Write(lines []byte) (int, error) {
	if err := w.directory.makeRoom(w.size+int64(len(lines)), w.part); err != nil {
		return 0, err
	}
	n, err := w.file.Write(lines)
	w.size += int64(n)
	return n, err
}
