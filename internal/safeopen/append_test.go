package safeopen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const nobody = 65534

func tryAppend(t *testing.T, path string, follow bool) error {
	t.Helper()
	return withinTime(t, func() error {
		f, _, err := Append(t.Context(), path, 0o600, follow)
		return closed(f, err)
	})
}

// Append creates a file that only its owner can use, and appends to one that exists.
func TestAppend_CreatesAndAppends(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records")
	for i := range 3 {
		f, inherited, err := Append(t.Context(), path, 0o600, false)
		mustDo(t, err)
		_, err = f.WriteString("x")
		mustDo(t, err, f.Close())
		if text, err := os.ReadFile(path); err != nil || len(text) != i+1 || f.Name() != path || inherited {
			t.Errorf("after %d writes the file %s has %q, %v; inherited %v", i+1, f.Name(), text, err, inherited)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file has the mode %v, %v", info.Mode(), err)
	}
}

// A link as the last component of the path is refused, wherever it leads. With follow it is
// followed, but no file is created through it. A link to a directory of the path is followed.
func TestAppend_Link(t *testing.T) {
	dir := t.TempDir()
	path, link, sub := filepath.Join(dir, "records"), filepath.Join(dir, "link"), filepath.Join(dir, "sub")
	mustDo(t, os.Symlink(path, link), os.Symlink(dir, sub))
	refused := func(when string) {
		t.Helper()
		if err := tryAppend(t, link, false); !errors.Is(err, ErrRefused) || err.Error() != link+" is a symbolic link" {
			t.Errorf("%s: a link gives %v, want it refused", when, err)
		}
	}
	refused("it leads nowhere")
	if err := tryAppend(t, link, true); !errors.Is(err, unix.ENOENT) {
		t.Errorf("a followed link that leads nowhere: %v, want %v", err, unix.ENOENT)
	}
	mustDo(t, tryAppend(t, filepath.Join(sub, "records"), false))
	refused("it leads to a file of this user")
	mustDo(t, tryAppend(t, link, true))
	mustDo(t, os.Remove(link), os.Symlink("/dev/fd/1", link))
	refused("it leads to a descriptor")
}

// The regular file or FIFO of another user is refused, in any directory. A file of root is
// not. With follow both are opened.
func TestAppend_FileOfAnotherUser(t *testing.T) {
	needRoot(t)
	for name, mode := range map[string]os.FileMode{"sticky": 0o777 | os.ModeSticky, "open": 0o777, "own": 0o700} {
		dir := filepath.Join(t.TempDir(), name)
		path, fifo := filepath.Join(dir, "file"), filepath.Join(dir, "fifo")
		mustDo(t, os.Mkdir(dir, 0o700), os.WriteFile(path, nil, 0o666), unix.Mkfifo(fifo, 0o666))
		mustDo(t, os.Chmod(dir, mode), os.Chown(fifo, nobody, 0))
		mustDo(t, tryAppend(t, path, false), os.Chown(path, nobody, 0))
		for _, each := range []string{path, fifo} {
			want := each + " belongs to another user (uid 65534)"
			if err := tryAppend(t, each, false); !errors.Is(err, ErrRefused) || err.Error() != want {
				t.Errorf("%v, want %s", err, want)
			}
		}
		mustDo(t, tryAppend(t, path, true))
	}
}

// A file with two names is refused: one may be that of another user's directory, as the kernel
// does not forbid with fs.protected_hardlinks=0.
func TestAppend_HardLink(t *testing.T) {
	dir := t.TempDir()
	path, other := filepath.Join(dir, "passwd"), filepath.Join(dir, "records")
	mustDo(t, os.WriteFile(path, nil, 0o600), os.Link(path, other))
	if err := tryAppend(t, other, false); !errors.Is(err, ErrRefused) {
		t.Errorf("a hard link: %v, want it refused", err)
	}
	mustDo(t, tryAppend(t, other, true), os.Remove(path), tryAppend(t, other, false))
}

// What a record would damage, or what acts when it is opened, is not opened, with follow neither.
func TestAppend_OtherKind(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	makeDevice := func(kind, major, minor uint32) string {
		path := filepath.Join(dir, fmt.Sprint(kind, major, minor))
		mustDo(t, unix.Mknod(path, kind|0o600, int(unix.Mkdev(major, minor))))
		return path
	}
	socket := filepath.Join(dir, "socket")
	l, err := net.Listen("unix", socket)
	mustDo(t, err)
	defer l.Close()
	watchdog := makeDevice(unix.S_IFCHR, 10, 130)
	for path, want := range map[string]string{
		makeDevice(unix.S_IFBLK, 7, 250): " is a block device",
		makeDevice(unix.S_IFCHR, 1, 1):   " is a device (1:1), and no terminal, /dev/null or /dev/full", // /dev/mem
		watchdog:                         " is a device (10:130), and no terminal, /dev/null or /dev/full",
		socket:                           " is a socket, which cannot be opened by its path",
	} {
		for _, follow := range []bool{false, true} {
			if err := tryAppend(t, path, follow); !errors.Is(err, ErrOtherKind) || err.Error() != path+want {
				t.Errorf("follow %v: %v, want %s%s", follow, err, path, want)
			}
		}
	}
	for _, path := range []string{"/dev/null", "/dev/full", makeDevice(unix.S_IFCHR, 1, 5)} {
		mustDo(t, tryAppend(t, path, false), tryAppend(t, path, true))
	}
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	mustDo(t, err)
	defer master.Close()
	mustDo(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	mustDo(t, err, tryAppend(t, fmt.Sprint("/dev/pts/", number), false))
}

// A user who exchanges the file for links all the time, in a directory such as /tmp, does not
// make Append write to a file of root.
func TestAppend_RaceWithAnotherUser(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	sticky, victim := filepath.Join(dir, "tmp"), filepath.Join(dir, "victim")
	mustDo(t, os.Mkdir(sticky, 0o700), os.Chmod(sticky, 0o777|os.ModeSticky), os.WriteFile(victim, nil, 0o644), os.Chmod(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o755))
	path := filepath.Join(sticky, "records")
	const attack = `cd "$1"; while :; do ln -s "$2" a; mv -f a records; : >b; mv -f b records; rm -f records; done`
	attacker := exec.Command("sh", "-c", attack, "sh", sticky, victim)
	attacker.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, Setpgid: true}
	mustDo(t, attacker.Start())
	defer func() {
		_ = syscall.Kill(-attacker.Process.Pid, syscall.SIGKILL)
		_ = attacker.Wait()
	}()
	created := 0
	for began := time.Now(); time.Since(began) < 2*time.Second; {
		f, _, err := Append(t.Context(), path, 0o600, false)
		if err != nil {
			continue
		}
		created++
		_, err = f.WriteString("ours\n")
		mustDo(t, err, f.Close())
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	if text, err := os.ReadFile(victim); err != nil || len(text) > 0 {
		t.Errorf("the file of root has %q, %v", text, err)
	}
	t.Logf("%d of the files were created by this process", created)
}

// The names of inherited descriptors lead to the descriptor itself, a socket included, and need
// no permission. Those that this process has opened are not meant.
func TestAppend_InheritedDescriptor(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	mustDo(t, err)
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	for _, dir := range []string{"/dev/fd", "/proc/self/fd"} {
		f, inherited, err := Append(t.Context(), fmt.Sprintf("%s/%d", dir, fds[0]), 0o600, false)
		mustDo(t, err)
		_, err = f.WriteString("x")
		mustDo(t, err, f.Close())
		var b [1]byte
		if n, err := unix.Read(fds[1], b[:]); n != 1 || err != nil || !inherited {
			t.Errorf("the other end reads %d bytes, %v; inherited %v", n, err, inherited)
		}
	}
	unix.CloseOnExec(fds[0])
	if err := tryAppend(t, fmt.Sprintf("/dev/fd/%d", fds[0]), false); !errors.Is(err, unix.EBADF) {
		t.Errorf("a descriptor that is closed on exec: %v, want %v", err, unix.EBADF)
	}
}

// The wait for a FIFO's reader ends with the context.
func TestAppend_FIFOUntilCanceled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	mustDo(t, unix.Mkfifo(path, 0o600))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := withinTime(t, func() error { f, _, err := Append(ctx, path, 0o600, false); return closed(f, err) })
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), path+": no process reads this FIFO") {
		t.Errorf("%v, want that no process reads %s", err, path)
	}
}
