package safeopen

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Terminal opens the terminal that a descriptor of this process refers to a second time, for reading and writing. A read or a
// write of the result has deadlines, and other processes that share the descriptor notice nothing of it. It fails if
// the descriptor is no terminal, or if this process may not open it.
func Terminal(fd int) (*os.File, error) {
	if _, err := unix.IoctlGetTermios(fd, unix.TCGETS); err != nil {
		return nil, fmt.Errorf("descriptor %d is no terminal: %w", fd, err)
	}
	path := fmt.Sprintf("/proc/self/fd/%d", fd)
	opened, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|always, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(opened), path), nil
}
