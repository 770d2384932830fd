package output

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const oldSuffix = ".20260101T000000.00000000%dZ"

// rotatingFileAt is rotating with a function that gets the notices.
func rotatingFileAt(t *testing.T, path string, r Rotation, notify func(string)) *rotatingFile {
	t.Helper()
	file, err := Open(t.Context(), path, false)
	if err != nil {
		t.Fatal(err)
	}
	r.Notify = notify
	out, err := Rotate(file, r)
	if err != nil {
		t.Fatal(err)
	}
	return out.(*rotatingFile)
}

// noise does not compress.
func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b)
	return b
}

func makeFile(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// What is named like an old file, but is none, is neither opened, nor removed, nor counted.
func TestRotation_HostileNames(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records")
	secret := filepath.Join(filepath.Dir(path), "secret")
	makeFile(t, secret, []byte("secret\n"))
	name := func(i int) string { return path + fmt.Sprintf(oldSuffix, i) }
	err := unix.Mkfifo(name(1), 0o600)
	for i, target := range []string{"secret", "records", "/etc/passwd", "nowhere"} {
		if err == nil {
			err = os.Symlink(target, name(2+i))
		}
	}
	if err == nil {
		err = os.MkdirAll(name(6)+"/below", 0o700)
	}
	if err == nil {
		err = os.MkdirAll(name(7)+".gz.part/below", 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	var out Output
	mustReturn(t, "Close", func() {
		out = rotating(t, path, Rotation{Age: time.Nanosecond, Keep: 3, Compress: true})
		write(t, out, "first\n")
		write(t, out, "second\n")
		if err := out.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, entry := range before {
		info, err := os.Lstat(filepath.Join(filepath.Dir(path), entry.Name()))
		if err != nil || info.Mode().Type() != entry.Type() {
			t.Errorf("%s is %v, %v; want it untouched", entry.Name(), info, err)
		}
		if _, err := os.Lstat(filepath.Join(filepath.Dir(path), entry.Name()+".gz")); entry.Type() != 0 && err == nil {
			t.Errorf("%s is compressed", entry.Name())
		}
	}
}

// If no new file can be made, the path still has the file that is open, and the next attempt
// succeeds.
func TestRotation_CannotCreate(t *testing.T) {
	dir := limitedTmpfs(t, "nr_inodes=3")
	path, ballast := filepath.Join(dir, "records"), filepath.Join(dir, "ballast")
	makeFile(t, ballast, nil)
	var notices []string
	f := rotatingFileAt(t, path, Rotation{Age: time.Nanosecond, Keep: 9}, func(m string) { notices = append(notices, m) })
	defer f.Close()
	for range 3 {
		write(t, f, "line\n")
	}
	if got := content(t, path); got != "line\nline\nline\n" || len(notices) != 1 || !strings.Contains(notices[0], "no space left") {
		t.Fatalf("the path has %q, the notices are %q", got, notices)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	f.next = time.Time{}
	write(t, f, "last\n")
	old, _ := filepath.Glob(path + ".*")
	if got := content(t, path); got != "last\n" || len(old) != 1 || content(t, old[0]) != "line\nline\nline\n" {
		t.Errorf("the path has %q, the old files are %q, the notices %q", got, old, notices)
	}
}

// A file that somebody has moved away gets a successor at the path.
func TestRotation_Moved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records")
	out := rotating(t, path, Rotation{Age: time.Nanosecond, Keep: 9})
	write(t, out, "first\n")
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	write(t, out, "second\n")
	if got, away := content(t, path), content(t, path+".away"); got != "second\n" || away != "first\n" {
		t.Errorf("the path has %q, the file moved away %q", got, away)
	}
	if err := out.Close(); err != nil {
		t.Error(err)
	}
}

// setImmutable makes a directory one in which no name can be made, renamed or removed, also by root.
func setImmutable(t *testing.T, dir string, on bool) {
	t.Helper()
	const immutable = 0x10 // FS_IMMUTABLE_FL
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	flags, err := unix.IoctlGetInt(int(d.Fd()), unix.FS_IOC_GETFLAGS)
	if flags &^= immutable; on {
		flags |= immutable
	}
	if err == nil {
		err = unix.IoctlSetPointerInt(int(d.Fd()), unix.FS_IOC_SETFLAGS, flags)
	}
	if err != nil {
		t.Skipf("this file system has no immutable directories: %v", err)
	}
}

// A directory that refuses changes meanwhile costs no line, one notice, and no rotation after that.
func TestRotation_PermissionLost(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "records")
	var notices []string
	f := rotatingFileAt(t, path, Rotation{Size: 10, Keep: 9}, func(m string) { notices = append(notices, m) })
	write(t, f, "line 1\nline 2\n")
	setImmutable(t, dir, true)
	t.Cleanup(func() { setImmutable(t, dir, false) })
	write(t, f, "line 3\nline 4\n")
	write(t, f, "line 5\n")
	if len(notices) != 1 || !strings.Contains(notices[0], "not permitted: the file that is open stays in use") {
		t.Errorf("the notices are %q, want one", notices)
	}
	setImmutable(t, dir, false)
	f.next = time.Time{}
	write(t, f, "line 6\n")
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if got := strings.Join(allOf(t, path), "|"); got != "line 1\n|line 2\nline 3\nline 4\nline 5\n|line 6\n" {
		t.Errorf("the files have %q", got)
	}
}

// The header of a new file that finds no space comes before its first line.
func TestRotation_HeaderWithoutSpace(t *testing.T) {
	dir := smallTmpfs(t)
	path, ballast := filepath.Join(dir, "records"), filepath.Join(dir, "ballast")
	f := rotatingFileAt(t, path, Rotation{Age: time.Nanosecond, Keep: 9, Header: []byte("HEADER\n")}, func(string) {})
	defer f.Close()
	write(t, f, "a first line\n")
	b, err := os.Create(ballast)
	for err == nil {
		_, err = b.Write(make([]byte, 4096))
	}
	b.Close()
	if n, err := f.Write([]byte("second\n")); err == nil || n != 0 {
		t.Fatalf("a full disk takes %d bytes", n)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	f.next = time.Now().Add(time.Hour)
	write(t, f, "second\n")
	if got := content(t, path); got != "HEADER\nsecond\n" {
		t.Errorf("the new file has %q", got)
	}
}

// Among thousands of files, old ones and those of others, the newest old ones and the others stay.
func TestRotation_ManyFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records")
	for i := range 1000 {
		makeFile(t, fmt.Sprintf("%s.20260101T%06d.000000000Z", path, i), []byte(fmt.Sprintln(i)))
		makeFile(t, fmt.Sprintf("%s.of-somebody.%d", path, i), nil)
	}
	if err := rotating(t, path, Rotation{Size: 1, Keep: 5, Compress: true}).Close(); err != nil {
		t.Fatal(err)
	}
	others, _ := filepath.Glob(path + ".of-somebody.*")
	old, _ := filepath.Glob(path + ".2*")
	if len(others) != 1000 || len(old) != 5 || !strings.HasPrefix(old[0], path+".20260101T000995") {
		t.Errorf("%d files of others and %q stay", len(others), old)
	}
}

// Files that rotate faster than they are compressed are bounded all the same.
func TestRotation_KeepWhileCompressing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records")
	makeFile(t, path+fmt.Sprintf(oldSuffix, 1), noise(4<<20))
	f := rotatingFileAt(t, path, Rotation{Age: time.Nanosecond, Keep: 3, Compress: true}, func(m string) { t.Error(m) })
	for i := range 50 {
		write(t, f, fmt.Sprintf("line %d\n", i))
	}
	f.old.finish()
	if files := allOf(t, path); len(files) != 4 || files[0] != "line 46\n" {
		t.Errorf("%d files, the first has %.20q; want 3 old ones", len(files), files[0])
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

// Close does not wait until a large file is compressed. The next start compresses it.
func TestRotation_CloseWhileCompressing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records")
	old := path + fmt.Sprintf(oldSuffix, 1)
	makeFile(t, old, nil)
	if err := os.Truncate(old, 16<<30); err != nil {
		t.Fatal(err)
	}
	f := rotatingFileAt(t, path, Rotation{Size: 1 << 20, Keep: 3, Compress: true}, func(m string) { t.Error(m) })
	awaitFileAt(t, old+".gz.part")
	mustReturn(t, "Close", func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	if left, _ := filepath.Glob(path + ".*"); len(left) != 1 || left[0] != old {
		t.Errorf("%q is left, want the old file", left)
	}
}

func awaitFileAt(t *testing.T, path string) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		if info, err := os.Stat(path); err == nil && info.Size() > 0 {
			return
		}
		if time.Since(began) > tooLong {
			t.Fatalf("no %s", path)
		}
	}
}

// rotatingEnv makes the test binary rotate the file that it names, until it is killed.
const rotatingEnv = "TCPSHIFT_TEST_ROTATING"

// A process that is killed while it compresses leaves the old file, and the next one compresses it.
func TestRotation_KilledWhileCompressing(t *testing.T) {
	if path := os.Getenv(rotatingEnv); path != "" {
		rotating(t, path, Rotation{Size: 1 << 20, Keep: 3, Compress: true})
		select {}
	}
	path := filepath.Join(t.TempDir(), "records")
	old := string(noise(8<<20)) + "\n"
	makeFile(t, path+fmt.Sprintf(oldSuffix, 1), []byte(old))
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), rotatingEnv+"="+path)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	awaitFileAt(t, path+fmt.Sprintf(oldSuffix, 1)+".gz.part")
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	f := rotatingFileAt(t, path, Rotation{Size: 1 << 20, Keep: 3, Compress: true}, func(m string) { t.Error(m) })
	f.old.finish()
	if files := allOf(t, path); len(files) != 2 || files[0] != old {
		t.Errorf("%d files, the first has %d bytes; want the old one and the new one", len(files), len(files[0]))
	}
	if left, _ := filepath.Glob(path + ".*"); len(left) != 1 || !strings.HasSuffix(left[0], "Z.gz") {
		t.Errorf("%q is left", left)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

// After Reopen the rotation goes on in the directory that the path has now.
func TestRotation_OtherDirectory(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "dir")
	path := filepath.Join(dir, "records")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	out := rotating(t, path, Rotation{Age: time.Nanosecond, Keep: 9})
	write(t, out, "first\n")
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := out.Reopen(); err != nil {
		t.Fatal(err)
	}
	write(t, out, "second\n")
	write(t, out, "third\n")
	if err := out.Close(); err != nil {
		t.Error(err)
	}
	if files := allOf(t, path); strings.Join(files, "|") != "second\n|third\n" {
		t.Errorf("the new directory has %q", files)
	}
}
