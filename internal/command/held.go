package command

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// heldName is the argument 0 of the process that waits.
const heldName = "tcpshift-held-command"

// Main is the program of the process that [Start] makes: it waits for Release and then becomes the
// command. There it never returns. In any other process it returns at once. It must be the first
// call of main, before signals are handled.
func Main() {
	if len(os.Args) < 3 || os.Args[0] != heldName {
		return
	}
	held, err := strconv.Atoi(os.Args[1])
	if err != nil || !mayBegin(held) {
		os.Exit(StatusFailed)
	}
	err = execute(os.Args[2:])
	fmt.Fprintf(os.Stderr, "tcpshift: %v\n", err)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
		os.Exit(StatusNotFound)
	}
	os.Exit(StatusNotExecutable)
}

// mayBegin waits for Release. It is false if the other process has canceled the command or has
// ended.
func mayBegin(held int) bool {
	unix.CloseOnExec(held)
	for {
		n, err := unix.Read(held, make([]byte, 1))
		if !errors.Is(err, unix.EINTR) {
			return n == 1
		}
	}
}

// execute replaces this process by the command. It returns only if that fails.
func execute(args []string) error {
	// The other process ignores them, and so does this one. execve(2) resets a signal that is
	// handled to its default, and leaves one that is ignored.
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE, unix.SIGTTOU)
	path, err := exec.LookPath(args[0])
	if errors.Is(err, exec.ErrDot) {
		err = nil // PATH names the working directory: the user wants that
	}
	if err != nil {
		if refused, ok := errors.AsType[*exec.Error](err); ok {
			err = refused.Err // the name stands in the message once
		}
		if errno, ok := errors.AsType[syscall.Errno](err); ok {
			err = errno
		}
		return fmt.Errorf("run %q: %w", args[0], err)
	}
	err = syscall.Exec(path, args, os.Environ())
	if errors.Is(err, unix.ENOEXEC) { // a script without an interpreter, see execvp(3)
		const shell = "/bin/sh"
		err = syscall.Exec(shell, append([]string{shell, path}, args[1:]...), os.Environ())
	}
	return fmt.Errorf("run %q: %w", path, err)
}
