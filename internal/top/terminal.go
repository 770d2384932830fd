package top

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/gdamore/tcell/v3"
	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/safeopen"
)

// leaveLimit bounds the wait for a terminal that does not read when it gets its own screen back.
const leaveLimit = 300 * time.Millisecond

// leave gives a terminal its own screen, cursor and modes back: what tcell has changed (ECMA-48, and the private modes
// of xterm). It begins with CAN, which ends an escape sequence that was cut.
const leave = "\x18\x1b[?2026l\x1b[m\x0f\x1b(B\x1b[?25h\x1b[?7h\x1b[?1l\x1b>\x1b[?2004l\x1b[H\x1b[J\x1b[?1049l\x1b[23;2t\r"

// terminal is the terminal of standard input and output. It implements [tcell.Tty]. No wait for it lasts after restore,
// and its descriptors are its own: the shell finds those that it shares as they were.
type terminal struct {
	in, out *os.File
	saved   *unix.Termios

	mu       sync.Mutex
	restored bool
	resizes  chan os.Signal // nil: nobody is to be notified
}

func openTerminal() (*terminal, error) {
	in, err := safeopen.Terminal(unix.Stdin)
	if err != nil {
		return nil, fmt.Errorf("standard input: %w", err)
	}
	out, err := safeopen.Terminal(unix.Stdout)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("standard output: %w", err), in.Close())
	}
	t := &terminal{in: in, out: out}
	err = t.control(func(fd int) (err error) {
		t.saved, err = unix.IoctlGetTermios(fd, unix.TCGETS)
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("standard input: %w", err), t.Close())
	}
	return t, nil
}

// control calls f with a descriptor of the terminal.
func (t *terminal) control(f func(fd int) error) error { return controlFile(t.in, f) }

func controlFile(file *os.File, f func(fd int) error) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = f(int(fd)) })
	return errors.Join(err, failed)
}

// Start implements [tcell.Tty]: it sets the raw mode of termios(3), in which Ctrl-C is a key.
func (t *terminal) Start() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.restored {
		return os.ErrClosed
	}
	raw := *t.saved
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	return t.control(func(fd int) error { return unix.IoctlSetTermios(fd, unix.TCSETS, &raw) })
}

// restore gives the terminal back, once. Any goroutine may call it. It takes leaveLimit at most. Nothing is
// written after it.
func (t *terminal) restore() {
	_ = t.out.SetWriteDeadline(time.Now()) // ends a write that waits
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.restored {
		return
	}
	t.restored = true
	_ = controlFile(t.out, func(fd int) error { return unix.IoctlSetInt(fd, unix.TCFLSH, unix.TCOFLUSH) })
	_ = t.out.SetWriteDeadline(time.Now().Add(leaveLimit))
	_, _ = t.out.WriteString(leave) // the terminal may be gone
	_ = t.control(func(fd int) error { return unix.IoctlSetTermios(fd, unix.TCSETS, t.saved) })
	_ = t.in.SetReadDeadline(time.Now())
}

// Read implements [tcell.Tty].
func (t *terminal) Read(b []byte) (int, error) { return t.in.Read(b) }

// Write implements [tcell.Tty]. It waits for a slow terminal, until restore.
func (t *terminal) Write(b []byte) (int, error) {
	t.mu.Lock() // restore ends the write before it waits for the lock
	defer t.mu.Unlock()
	if t.restored {
		return 0, os.ErrClosed
	}
	return t.out.Write(b)
}

// Drain implements [tcell.Tty].
func (t *terminal) Drain() error { return t.in.SetReadDeadline(time.Now()) }

// Stop implements [tcell.Tty].
func (t *terminal) Stop() error {
	t.restore()
	return nil
}

// Close implements [tcell.Tty].
func (t *terminal) Close() error { return errors.Join(t.in.Close(), t.out.Close()) }

// WindowSize implements [tcell.Tty]. A terminal that does not know its size, such as a serial line, counts as 80 by 24.
func (t *terminal) WindowSize() (tcell.WindowSize, error) {
	size := tcell.WindowSize{Width: 80, Height: 24}
	err := controlFile(t.out, func(fd int) error {
		ws, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
		if err == nil && ws.Col > 0 && ws.Row > 0 {
			size.Width, size.Height = int(ws.Col), int(ws.Row)
		}
		return err
	})
	return size, err
}

// NotifyResize implements [tcell.Tty].
func (t *terminal) NotifyResize(notify chan<- bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.resizes != nil {
		signal.Stop(t.resizes)
		close(t.resizes)
		t.resizes = nil
	}
	if notify == nil {
		return
	}
	t.resizes = make(chan os.Signal, 1)
	signal.Notify(t.resizes, syscall.SIGWINCH)
	go func(resizes <-chan os.Signal) {
		for range resizes {
			select {
			case notify <- true:
			default: // the next one does
			}
		}
	}(t.resizes)
}
