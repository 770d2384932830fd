package output

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tcpshift/tcpshift/internal/safeopen"
)

// rotationRetry is the least time between a rotation that failed and the next attempt.
const rotationRetry = time.Minute

// Rotation is when a file is renamed and a new one begun, and what becomes of the old ones. Size and Age
// of 0 mean never.
type Rotation struct {
	Size     int64         // the most bytes of a file, unless one line has more; 0: no limit
	Age      time.Duration // since the file was opened, checked at each write; 0: no limit
	Keep     int           // how many old files stay; the oldest are removed
	Compress bool          // whether old files are compressed, with gzip
	Header   []byte        // begins each file that a rotation makes; it does not count as written
	// Notify gets a message when a rotation fails or an old file may be incomplete. Any goroutine may
	// call it. It must not wait.
	Notify func(message string)
}

// rotatingFile is a regular file with a Rotation. It renames, makes and removes files through a
// descriptor of their directory. An old file is named PATH.TIME or PATH.TIME.gz, with the time in UTC.
type rotatingFile struct {
	*regularFile
	rotation Rotation
	root     *os.Root
	base     string // the file's name in root
	size     int64  // bytes
	opened   time.Time
	midLine  bool          // a failed write has left part of a line
	next     time.Time     // no rotation before this time
	tidying  chan struct{} // full while tidy runs
}

// Rotate returns out with a rotation, and tidies the old files of an earlier run in the background. It fails
// if out is not a regular file with a path, or if the directory of the path cannot be opened.
func Rotate(out Output, r Rotation) (Output, error) {
	file, ok := out.(*regularFile)
	if !ok || !file.Reopens() {
		return nil, errors.New("is not a regular file: only such a file can be rotated")
	}
	root, err := safeopen.Root(filepath.Dir(file.path))
	if err != nil {
		return nil, err
	}
	f := &rotatingFile{regularFile: file, rotation: r, root: root, base: filepath.Base(file.path), tidying: make(chan struct{}, 1)}
	f.begin()
	f.tidy()
	return f, nil
}

// begin notes the size of the file that is open, and the present as the time of its opening.
func (f *rotatingFile) begin() {
	f.size, f.opened = 0, time.Now()
	if info, err := f.file.Stat(); err == nil {
		f.size = info.Size()
	}
}

func (f *rotatingFile) Write(lines []byte) (int, error) { return writeAll(f, lines) }

// try writes the lines in pieces, each as large as the open file may get, and rotates between the pieces.
func (f *rotatingFile) try(lines []byte) (written int, err error) {
	for written < len(lines) && err == nil {
		if f.due(firstLine(lines[written:])) {
			f.rotate()
		}
		piece := lines[written:]
		if room := f.rotation.Size - f.size; f.rotation.Size > 0 && int64(len(piece)) > room {
			fits := wholeLines(piece[:max(0, room)])
			piece = piece[:max(fits, len(firstLine(piece)))]
		}
		var n int
		n, err = f.regularFile.try(piece)
		written, f.size = written+n, f.size+int64(n)
		if n > 0 {
			f.midLine = piece[n-1] != '\n'
		}
	}
	return written, err
}

// due reports whether a rotation must come before line is written. It is false for a file without lines.
func (f *rotatingFile) due(line []byte) bool {
	if f.size <= int64(len(f.rotation.Header)) || f.midLine {
		return false
	}
	full := f.rotation.Size > 0 && f.size+int64(len(line)) > f.rotation.Size
	old := f.rotation.Age > 0 && time.Since(f.opened) >= f.rotation.Age
	return (full || old) && !time.Now().Before(f.next)
}

// rotate begins a new file. If that fails, the open one stays in use.
func (f *rotatingFile) rotate() {
	old := f.base + "." + time.Now().UTC().Format("20060102T150405.000000000Z")
	file, err := f.replace(old)
	if err != nil {
		f.next = time.Now().Add(rotationRetry)
		f.rotation.Notify(fmt.Sprintf("rotate %s: %v: the file that is open stays in use", f.path, err))
		return
	}
	before := f.descriptor
	f.file, f.fd = file, int(file.Fd())
	if err := before.Close(); err != nil { // some file systems write only then
		f.rotation.Notify(fmt.Sprintf("the file %s may not be complete: %v", old, err))
	}
	f.begin()
	if len(f.rotation.Header) > 0 {
		n, err := f.regularFile.try(f.rotation.Header)
		f.size += int64(n)
		if err != nil { // the next line probably fails, too, and then the run ends or waits
			f.rotation.Notify(err.Error())
		}
	}
	f.tidy()
}

// replace renames the file to old, and makes a new one. If it cannot make one, the file gets its name back,
// unless another process has made a file of that name meanwhile.
func (f *rotatingFile) replace(old string) (*os.File, error) {
	if err := f.root.Rename(f.base, old); err != nil {
		return nil, err
	}
	file, err := f.root.OpenFile(f.base, os.O_WRONLY|os.O_APPEND|os.O_CREATE|os.O_EXCL, f.options.Mode)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		err = errors.Join(err, f.root.Rename(old, f.base))
	}
	return file, err
}

// tidy compresses and removes old files in the background. It does nothing while an earlier call runs.
func (f *rotatingFile) tidy() {
	select {
	case f.tidying <- struct{}{}:
	default:
		return // the next call takes these files, too
	}
	path := f.path // Reopen writes to the field meanwhile
	go func() {
		if err := tidy(f.root, f.base, f.rotation); err != nil {
			f.rotation.Notify(fmt.Sprintf("tidy the old files of %s: %v", path, err))
		}
		<-f.tidying
	}()
}

// Reopen opens the path again, as Reopen of the regular file does. The new file is rotated, too. It gets no
// Header.
func (f *rotatingFile) Reopen() error {
	err := f.regularFile.Reopen()
	f.begin()
	return err
}

// Close waits for tidy if it runs: a compression that is cut off begins anew at the next start.
func (f *rotatingFile) Close() error {
	f.tidying <- struct{}{}
	return errors.Join(f.regularFile.Close(), f.root.Close())
}

// What follows the file's name in the names of old files, and of those that a compression is writing.
var (
	oldName  = regexp.MustCompile(`^\.\d{8}T\d{6}\.\d{9}Z(\.gz)?$`)
	partName = regexp.MustCompile(`^\.\d{8}T\d{6}\.\d{9}Z\.gz\.part$`)
)

// tidy removes what a crash has left, removes the oldest files, and compresses the others.
func tidy(root *os.Root, base string, r Rotation) error {
	names, err := list(root)
	if err != nil {
		return err
	}
	var old []string
	for _, name := range names {
		suffix, found := strings.CutPrefix(name, base)
		switch {
		case !found:
		case partName.MatchString(suffix),
			// The compressed file is whole: compress renames it last.
			oldName.MatchString(suffix) && slices.Contains(names, name+".gz"):
			err = errors.Join(err, root.Remove(name))
		case oldName.MatchString(suffix):
			old = append(old, name)
		}
	}
	slices.Sort(old)
	for len(old) > r.Keep {
		err = errors.Join(err, root.Remove(old[0]))
		old = old[1:]
	}
	for _, name := range old {
		if r.Compress && !strings.HasSuffix(name, ".gz") {
			err = errors.Join(err, compress(root, name))
		}
	}
	return err
}

func list(root *os.Root) ([]string, error) {
	dir, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.Readdirnames(-1)
}

// compress replaces a file by a compressed one, NAME.gz with the mode of the file. At every moment one of the
// two is whole.
func compress(root *os.Root, name string) (err error) {
	part := name + ".gz.part"
	from, err := root.Open(name)
	if err != nil {
		return err
	}
	defer from.Close()
	info, err := from.Stat()
	if err != nil {
		return err
	}
	to, err := root.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, info.Mode().Perm())
	if err != nil {
		return err
	}
	writer := gzip.NewWriter(to)
	_, err = io.Copy(writer, from)
	if err = errors.Join(err, writer.Close(), to.Sync(), to.Close()); err != nil {
		return errors.Join(err, root.Remove(part))
	}
	return errors.Join(root.Rename(part, name+".gz"), root.Remove(name))
}
