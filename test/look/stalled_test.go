package look_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A terminal that nobody reads does not stop the tracing, and does not delay the end: the screen has all numbers when it
// is read again, and after SIGTERM the terminal has its own screen and modes back.
func TestTop_TerminalThatDoesNotRead(t *testing.T) {
	n := newTopNetns(t)
	makeConnections := topLoad(t, n)
	master, slave := openPTY(t)
	resize(t, master, 80, 24)
	before, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "top", "--netns", strconv.FormatUint(uint64(n.Inode()), 10))
	cmd.Env = append(os.Environ(), "TERM=xterm-256color")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // it has ended, or the test has failed
	readUntil(t, master, "LISTEN")

	stall := func(columns uint16) { // one frame of so many cells is more than the kernel keeps for a terminal
		t.Helper()
		resize(t, master, columns, 400)
		if err := cmd.Process.Signal(unix.SIGWINCH); err != nil {
			t.Fatal(err)
		}
		awaitFull(t, master)
	}
	stall(500)
	makeConnections()
	readUntil(t, master, "170")
	stall(501)
	stopped := time.Now()
	if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-exited:
		if took := time.Since(stopped); err != nil || took > 5*time.Second {
			t.Errorf("it ends after %v: %v", took, err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it does not end")
	}
	after, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	if *after != *before {
		t.Errorf("the modes of the terminal are %+v, and were %+v", after, before)
	}
	if left := readUntil(t, master, "\x1b[?1049l"); strings.Contains(left[strings.LastIndex(left, "\x1b[?1049l"):], "tcpshift") {
		t.Errorf("something comes after the end: %q", left)
	}
}

func resize(t *testing.T, master *os.File, columns, rows uint16) {
	t.Helper()
	raw, err := master.SyscallConn() // Fd would end the deadlines of master
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows})
	})
	if err != nil || failed != nil {
		t.Fatal(err, failed)
	}
}

// openPTY opens both ends of a pseudo-terminal, as openpty(3) does.
func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		skipMissing(t, "needs pseudo-terminals: "+err.Error())
	}
	master = os.NewFile(uintptr(fd), "/dev/ptmx")
	t.Cleanup(func() { master.Close() })
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Fatalf("open a pseudo-terminal: %v", err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

// readUntil reads until a text has come, and returns all of it.
func readUntil(t *testing.T, master *os.File, text string) string {
	t.Helper()
	if err := master.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var all []byte
	chunk := make([]byte, 64<<10)
	for !bytes.Contains(all, []byte(text)) {
		n, err := master.Read(chunk)
		all = append(all, chunk[:n]...)
		if err != nil {
			t.Fatalf("%q does not come: %v; last is %q", text, err, all[max(0, len(all)-500):])
		}
	}
	return string(all)
}

// awaitFull waits until the terminal takes nothing more: the kernel has given master a part of the frame, as much as
// it keeps there, and no more comes. Whether the other end is writable does not show it: the kernel may have room again
// and not wake the writer.
func awaitFull(t *testing.T, master *os.File) {
	t.Helper()
	const kept = 4000 // of N_TTY_BUF_SIZE, 4096 (drivers/tty/n_tty.c)
	full := time.Time{}
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		switch unread := unreadBytes(t, master); {
		case unread < kept:
			full = time.Time{}
		case full.IsZero():
			full = time.Now()
		case time.Since(full) > time.Second/2:
			return
		}
	}
	t.Fatal("the terminal is never full")
}

// unreadBytes is how many bytes a read would return.
func unreadBytes(t *testing.T, master *os.File) (unread int) {
	t.Helper()
	raw, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) { unread, failed = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	if err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	return unread
}
