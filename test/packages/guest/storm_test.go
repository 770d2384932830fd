package guest_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ports is how many local ports a client has. An emulated processor is too slow to use up the 28,232 of the kernel within
// the minute that a TIME_WAIT lasts.
const ports = 500

// client makes connections to a listener of its own, and closes them first. One thread does both sides with system calls,
// because a switch of threads costs an emulated processor much time.
type client struct {
	t        *testing.T
	listener int
	to       *unix.SockaddrInet4
}

// newClient listens at 127.0.0.HOST. No other test may use this address, because its TIME_WAITs stay for a minute.
func newClient(t *testing.T, host byte, port int) *client {
	t.Helper()
	c := &client{t: t, to: &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, host}}}
	var err error
	if c.listener, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(c.listener) })
	if err := errors.Join(unix.Bind(c.listener, c.to), unix.Listen(c.listener, 1)); err != nil {
		t.Fatal(err)
	}
	return c
}

// connect makes a connection and closes both ends. It returns the error of connect(2).
func (c *client) connect() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Connect(fd, c.to); err != nil {
		unix.Close(fd)
		return err
	}
	accepted, _, err := unix.Accept4(c.listener, unix.SOCK_CLOEXEC)
	return errors.Join(err, unix.Close(fd), unix.Close(accepted))
}

// storm is a client that opens new connections until the test ends it.
type storm struct {
	*client
	began       time.Time
	done        chan struct{}
	ended       sync.WaitGroup
	connections int // until the storm has ended
	failed      error
}

// startStorm begins a storm from [ports] local ports.
func startStorm(t *testing.T, host byte) *storm {
	t.Helper()
	write(t, "/proc/sys/net/ipv4/ip_local_port_range", fmt.Sprintf("%d %d", 32768, 32768+ports-1))
	// connect() would take over a TIME_WAIT over loopback after a second.
	write(t, "/proc/sys/net/ipv4/tcp_tw_reuse", "0")
	s := &storm{client: newClient(t, host, 7000), began: time.Now(), done: make(chan struct{})}
	s.ended.Go(s.run)
	t.Cleanup(s.end)
	return s
}

func (s *storm) run() {
	runtime.LockOSThread()
	for {
		select {
		case <-s.done:
			return
		default:
		}
		switch err := s.connect(); {
		case err == nil:
			s.connections++
		case errors.Is(err, unix.EADDRNOTAVAIL):
			time.Sleep(50 * time.Millisecond) // as a client that tries again
		default:
			s.failed = err
			return
		}
	}
}

// end ends the storm. It may be called twice.
func (s *storm) end() {
	select {
	case <-s.done:
		return
	default:
	}
	close(s.done)
	s.ended.Wait()
	s.t.Logf("the storm made %d connections in %.1f s", s.connections, time.Since(s.began).Seconds())
	if s.failed != nil {
		s.t.Error(s.failed)
	}
}

// entries has the entries of the journal that match, from the call of followJournal on.
type entries struct {
	t     *testing.T
	lines chan map[string]any
	what  []string
}

// followJournal starts journalctl with matches, behind the entry that is the newest now. So no later entry is missed.
func followJournal(t *testing.T, matches ...string) *entries {
	t.Helper()
	cursor := run(t, "journalctl", "--no-pager", "-n", "1", "-o", "json", "--output-fields=MESSAGE")
	var last struct {
		Cursor string `json:"__CURSOR"`
	}
	if err := json.Unmarshal([]byte(cursor), &last); err != nil {
		t.Fatalf("%v: %s", err, cursor)
	}
	c := exec.Command("journalctl", append([]string{"-f", "-o", "json", "--after-cursor=" + last.Cursor, "--no-tail"}, matches...)...)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	e := &entries{t: t, lines: make(chan map[string]any, 1000), what: matches}
	go func() {
		defer close(e.lines)
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var entry map[string]any
			if json.Unmarshal(lines.Bytes(), &entry) == nil {
				e.lines <- entry
			}
		}
	}()
	t.Cleanup(func() {
		_ = c.Process.Kill()
		for range e.lines {
		}
		_ = c.Wait()
	})
	return e
}

// next waits for the next entry.
func (e *entries) next() map[string]any {
	e.t.Helper()
	select {
	case entry := <-e.lines:
		return entry
	case <-time.After(waitLimit):
		e.t.Fatalf("no entry %q in the journal within %v\n%s", e.what, waitLimit, serviceLog())
		return nil
	}
}
