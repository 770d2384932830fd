package output

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/safeopen"
)

// The names of old files, after that of the file.
var (
	oldName  = regexp.MustCompile(`^\.\d{8}T\d{6}\.\d{9}Z(\.gz)?$`)
	partName = regexp.MustCompile(`^\.\d{8}T\d{6}\.\d{9}Z\.gz\.part$`)
)

// lastCompression is how long a compression may delay the end.
const lastCompression = time.Second

// oldFiles are the files that a rotation has left in a directory. Somebody else may be able to write
// there: what is no regular file is not touched, whatever its name.
type oldFiles struct {
	root     *os.Root // the directory
	path     string   // of the file, for messages
	base     string   // its name
	rotation atomic.Pointer[Rotation]
	wanted   atomic.Bool // tidy has been called
	busy     chan struct{}
	ending   atomic.Bool
}

func newOldFiles(root *os.Root, path string, r Rotation) *oldFiles {
	o := &oldFiles{root: root, path: path, base: filepath.Base(path), busy: make(chan struct{}, 1)}
	o.rotation.Store(&r)
	return o
}

// errEnding means that close has ended a compression.
var errEnding = errors.New("the output is closed")

// tidy compresses and removes old files in the background.
func (o *oldFiles) tidy() {
	o.wanted.Store(true)
	select {
	case o.busy <- struct{}{}:
		go o.run(o.root)
	default: // run sees wanted
	}
}

// run tidies until nobody wants it any more.
func (o *oldFiles) run(root *os.Root) {
	for o.wanted.Swap(false) {
		err := o.tidyOnce(root)
		if err != nil && !errors.Is(err, errEnding) && !errors.Is(err, os.ErrClosed) {
			o.rotation.Load().Notify(fmt.Sprintf("tidy the old files of %s: %v", o.path, err))
		}
	}
	<-o.busy
	if o.wanted.Load() { // since the check above
		select {
		case o.busy <- struct{}{}:
			o.run(root)
		default:
		}
	}
}

// finish waits until run has ended.
func (o *oldFiles) finish() {
	o.busy <- struct{}{}
	<-o.busy
}

// move goes on in the directory that path has now.
func (o *oldFiles) move(path string) error {
	root, err := safeopen.Root(filepath.Dir(path))
	if err != nil {
		return err
	}
	now, nowErr := root.Stat(".")
	before, beforeErr := o.root.Stat(".")
	if nowErr == nil && beforeErr == nil && os.SameFile(now, before) {
		return root.Close()
	}
	earlier := o.root
	o.root = root
	return earlier.Close()
}

// close waits until everything is tidy. It ends a compression that takes long.
func (o *oldFiles) close() error {
	defer time.AfterFunc(lastCompression, func() { o.ending.Store(true) }).Stop()
	o.finish()
	return o.root.Close()
}

// tidyOnce removes what a crash has left, removes the oldest files, and compresses the others, one at
// a time: meanwhile more may have come.
func (o *oldFiles) tidyOnce(root *os.Root) error {
	for {
		plain, err := o.trim(root)
		if err != nil || len(plain) == 0 || !o.rotation.Load().Compress {
			return err
		}
		if err := o.compress(root, plain[0]); err != nil {
			return err
		}
	}
}

// trim removes what a crash has left and the oldest files. It returns those that stay and are not
// compressed.
func (o *oldFiles) trim(root *os.Root) (plain []string, err error) {
	files, err := o.list(root)
	if err != nil {
		return nil, err
	}
	var old []string
	for _, name := range files {
		suffix := name[len(o.base):]
		_, compressed := slices.BinarySearch(files, name+".gz")
		switch {
		// The compressed file is whole: it has got its name after that.
		case partName.MatchString(suffix), compressed:
			err = errors.Join(err, remove(root, name))
		default:
			old = append(old, name)
		}
	}
	surplus := max(0, len(old)-o.rotation.Load().Keep)
	for _, name := range old[:surplus] {
		err = errors.Join(err, remove(root, name))
	}
	for _, name := range old[surplus:] {
		if !strings.HasSuffix(name, ".gz") {
			plain = append(plain, name)
		}
	}
	return plain, err
}

// remove removes a file that somebody else may have removed.
func remove(root *os.Root, name string) error {
	if err := root.Remove(name); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// list returns the regular files that are named like old ones or parts, sorted.
func (o *oldFiles) list(root *os.Root) (files []string, err error) {
	dir, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	for _, name := range names {
		suffix, found := strings.CutPrefix(name, o.base)
		if !found || !oldName.MatchString(suffix) && !partName.MatchString(suffix) {
			continue
		}
		if info, err := root.Lstat(name); err == nil && info.Mode().IsRegular() {
			files = append(files, name)
		}
	}
	slices.Sort(files)
	return files, err
}

// compress replaces a file by a compressed one. At every moment one of the two is whole.
func (o *oldFiles) compress(root *os.Root, name string) (err error) {
	part := name + ".gz.part"
	before, err := root.Lstat(name)
	if err != nil {
		return err
	}
	from, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO may be there by now
	if err != nil {
		return err
	}
	defer from.Close()
	info, err := from.Stat()
	if err != nil {
		return err
	}
	if !os.SameFile(before, info) || !info.Mode().IsRegular() {
		return fmt.Errorf("%s is another file by now", name)
	}
	to, err := root.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, info.Mode().Perm())
	if err != nil {
		return err
	}
	writer := gzip.NewWriter(to)
	_, err = io.Copy(writer, untilEnding{o, from})
	if err == nil {
		err = errors.Join(writer.Close(), to.Sync())
	}
	if err = errors.Join(err, to.Close()); err != nil {
		return errors.Join(err, root.Remove(part))
	}
	return errors.Join(root.Rename(part, name+".gz"), root.Remove(name))
}

// untilEnding reads a file until close has waited for lastCompression.
type untilEnding struct {
	*oldFiles
	file *os.File
}

// Read fails with errEnding once ending is set.
func (r untilEnding) Read(b []byte) (int, error) {
	if r.ending.Load() {
		return 0, errEnding
	}
	return r.file.Read(b)
}
