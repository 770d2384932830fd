// Package command starts a command that waits until it may begin, in a process that has its pid
// already. It must not know why the command waits, nor trace it.
package command

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// The exit statuses of a command that has not run, as env(1) and the shells have them.
const (
	StatusFailed        = 125 // this program failed
	StatusNotExecutable = 126
	StatusNotFound      = 127
)

// Command is a command that runs, or waits for Release. Only Signal may be called while another
// method runs.
type Command struct {
	process *os.Process
	held    *os.File // the process waits for a byte from it
	mu      sync.Mutex
	started bool // with mu; by Release
}

// Start starts a process for the command, which waits for Release. The command has the environment, the
// working directory and the descriptors of this process, and its limits of resources, except that of
// locked memory, which is lockedMemory. The caller must Wait.
func Start(args []string, lockedMemory unix.Rlimit) (*Command, error) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("make a pipe: %w", err)
	}
	c := &Command{held: os.NewFile(uintptr(pipe[1]), "pipe")}
	pid, err := fork(args, pipe[0])
	err = errors.Join(err, unix.Close(pipe[0]))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start a process for the command: %w", err), c.held.Close())
	}
	if c.process, err = os.FindProcess(pid); err != nil {
		return nil, errors.Join(err, c.held.Close())
	}
	if err := unix.Prlimit(pid, unix.RLIMIT_MEMLOCK, &lockedMemory, nil); err != nil {
		return nil, errors.Join(fmt.Errorf("set the limits of the command: %w", err), c.held.Close())
	}
	return c, nil
}

// fork starts this program again, which calls [Main]. The new process inherits the descriptor held
// under the same number: a fixed number, such as 3, could be one that this process has inherited
// and that the command expects.
func fork(args []string, held int) (pid int, err error) {
	if _, err := unix.FcntlInt(uintptr(held), unix.F_SETFD, 0); err != nil {
		return 0, err
	}
	words := append([]string{heldName, strconv.Itoa(held)}, args...)
	return syscall.ForkExec("/proc/self/exe", words, &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2},
	})
}

// Release lets the command begin.
func (c *Command) Release() error {
	c.mu.Lock()
	c.started = true
	c.mu.Unlock()
	_, err := c.held.Write([]byte{1})
	if errors.Is(err, unix.EPIPE) {
		err = nil // a signal has ended the process, as Wait reports
	}
	return errors.Join(err, c.held.Close())
}

// Cancel ends the process of a command that has not begun: Wait then returns StatusFailed. It does
// nothing after Release.
func (c *Command) Cancel() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.started {
		_ = c.held.Close() // a second Close fails
	}
}

// Signal sends a signal to the process. It does nothing once the process has ended.
func (c *Command) Signal(s os.Signal) error {
	if err := c.process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("send %v to the command: %w", s, err)
	}
	return nil
}

// Wait waits for the end of the process and returns its exit status: 128 and the signal's number
// if a signal has ended it.
func (c *Command) Wait() (status int, err error) {
	state, err := c.process.Wait()
	if err != nil {
		return StatusFailed, fmt.Errorf("wait for the command: %w", err)
	}
	if s, ok := state.Sys().(syscall.WaitStatus); ok && s.Signaled() {
		return 128 + int(s.Signal()), nil
	}
	return state.ExitCode(), nil
}
