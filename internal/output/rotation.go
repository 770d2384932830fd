package output

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/tcpshift/tcpshift/internal/safeopen"
)

// rotationRetry is the time after a rotation that failed.
const rotationRetry = time.Minute

// Rotation decides when a file is renamed and a new one begins, and what becomes of the old ones.
// With a Size and an Age of 0 no file is renamed.
type Rotation struct {
	Size     int64                // a line that makes the file larger, in bytes, begins a new one; 0: no limit
	Age      time.Duration        // since the file was opened, checked at each write; 0: no limit
	Keep     int                  // how many old files stay; the oldest are removed
	Compress bool                 // compress old files with gzip
	Header   []byte               // begins each new file; it is not part of the lines
	Notify   func(message string) // gets a message about each failure; it must not wait
}

// rotatingFile is a regular file with a Rotation. It renames, makes and removes files through a
// descriptor of their directory. An old file is named PATH.TIME or PATH.TIME.gz, with the time in UTC.
type rotatingFile struct {
	*regularFile
	rotation Rotation
	base     string // the file's name in its directory
	size     int64  // bytes
	opened   time.Time
	midLine  bool      // a failed write has left part of a line
	headless bool      // the header is still to be written
	next     time.Time // no rotation before
	last     time.Time // in the name of the last old file
	old      *oldFiles
	begun    atomic.Uint64 // files after a rotation
	newer    atomic.Pointer[Rotation]
}

// Rotate returns an output that writes to the file of out and rotates it by r; it takes the place of
// out. What earlier runs have left of old files it removes and compresses in the background, from now
// on. It fails if out is not a regular file with a path, or if the file's directory cannot be opened.
func Rotate(out Output, r Rotation) (Output, error) {
	file, ok := out.(*regularFile)
	if !ok || !file.Reopens() {
		return nil, errors.New("is not a regular file: only such a file can be rotated")
	}
	root, err := safeopen.Root(filepath.Dir(file.path))
	if err != nil {
		return nil, err
	}
	f := &rotatingFile{regularFile: file, rotation: r, base: filepath.Base(file.path)}
	f.old = newOldFiles(root, file.path, r)
	f.begin()
	f.old.tidy()
	return f, nil
}

// ChangeRotation replaces the rotation of an output that [Rotate] has returned, except its header, from the next
// write on. It reports false for other outputs. Any goroutine may call it.
func ChangeRotation(out Output, r Rotation) bool {
	f, ok := out.(*rotatingFile)
	if ok {
		f.newer.Store(&r)
	}
	return ok
}

// takeNewer takes over a rotation of ChangeRotation.
func (f *rotatingFile) takeNewer() {
	r := f.newer.Swap(nil)
	if r == nil {
		return
	}
	r.Header = f.rotation.Header
	f.rotation = *r
	f.old.rotation.Store(r)
	f.old.tidy()
}

// begin notes the size of the file that is open.
func (f *rotatingFile) begin() {
	f.size, f.opened = 0, time.Now()
	if info, err := f.file.Stat(); err == nil {
		f.size = info.Size()
	}
}

// Write writes all lines, to several files if a rotation is due between two lines.
func (f *rotatingFile) Write(lines []byte) (int, error) { return writeAll(f, lines) }

// try writes as many lines at once as the file may have.
func (f *rotatingFile) try(lines []byte) (written int, err error) {
	f.takeNewer()
	for written < len(lines) && err == nil {
		if f.due(firstLine(lines[written:])) {
			f.rotate()
		}
		if err = f.writeHeader(); err != nil {
			break
		}
		piece := lines[written:]
		if room := f.rotation.Size - f.size; f.mayRotate() && f.rotation.Size > 0 && int64(len(piece)) > room {
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

// due reports whether line belongs to a new file.
func (f *rotatingFile) due(line []byte) bool {
	if f.size <= int64(len(f.rotation.Header)) || f.midLine {
		return false
	}
	full := f.rotation.Size > 0 && f.size+int64(len(line)) > f.rotation.Size
	old := f.rotation.Age > 0 && time.Since(f.opened) >= f.rotation.Age
	return (full || old) && f.mayRotate()
}

// mayRotate is false for a while after a rotation that failed.
func (f *rotatingFile) mayRotate() bool { return f.next.IsZero() || !time.Now().Before(f.next) }

// rotate begins a new file. If that fails, the open one stays in use.
func (f *rotatingFile) rotate() {
	file, old, err := f.replace()
	if err != nil {
		f.next = time.Now().Add(rotationRetry)
		f.rotation.Notify(fmt.Sprintf("rotate %s: %v: the file that is open stays in use", f.path, err))
		return
	}
	before := f.descriptor
	f.file, f.fd, f.next = file, int(file.Fd()), time.Time{}
	if err := before.Close(); err != nil { // some file systems write only then
		f.rotation.Notify(fmt.Sprintf("the file %s may not be complete: %v", old, err))
	}
	f.begin()
	f.headless = len(f.rotation.Header) > 0
	f.begun.Add(1)
	f.old.tidy()
}

// Begun implements [beginner].
func (f *rotatingFile) Begun() uint64 { return f.begun.Load() }

// replace renames the file at the path and makes a new one there. If that fails, the path has the file
// that it had. It is no failure if the path has none: somebody has moved it away.
func (f *rotatingFile) replace() (file *os.File, old string, err error) {
	root := f.old.root
	old = f.oldName(time.Now())
	err = root.Rename(f.base, old)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, old, err
	}
	renamed := err == nil
	file, err = root.OpenFile(f.base, os.O_WRONLY|os.O_APPEND|os.O_CREATE|os.O_EXCL, f.options.Mode)
	if err != nil && renamed && !errors.Is(err, os.ErrExist) {
		err = errors.Join(err, root.Rename(old, f.base))
	}
	return file, old, err
}

// oldName is the name of a file that is old from now on. The names have the order of the files, even
// if the clock is set back.
func (f *rotatingFile) oldName(now time.Time) string {
	now = now.Round(0) // the wall clock
	if !now.After(f.last) {
		now = f.last.Add(1)
	}
	f.last = now
	return f.base + "." + now.UTC().Format("20060102T150405.000000000Z")
}

// writeHeader begins a new file.
func (f *rotatingFile) writeHeader() error {
	if !f.headless {
		return nil
	}
	n, err := f.regularFile.try(f.rotation.Header)
	f.size += int64(n)
	f.headless = err != nil && n == 0
	return err
}

// Reopen is that of the regular file. Its rotation goes on with the new one, in the directory that the
// path has now.
func (f *rotatingFile) Reopen() error {
	err := f.regularFile.Reopen()
	if err == nil {
		err = f.old.move(f.path)
		f.headless, f.next = false, time.Time{}
	}
	f.begin()
	return err
}

// Close waits a second for the compression of old files, and ends it then: the next start begins it anew.
func (f *rotatingFile) Close() error { return errors.Join(f.regularFile.Close(), f.old.close()) }
