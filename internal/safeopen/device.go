package safeopen

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// unsuitable returns why no record can be written to a file of this kind, even if
// root has put it there, or "". A record would overwrite data on a block device; and some character devices act
// when they are opened or written, such as /dev/watchdog and /dev/mem.
func unsuitable(st *unix.Stat_t) string {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFBLK:
		return "is a block device"
	case unix.S_IFSOCK:
		return "is a socket, which cannot be opened by its path"
	case unix.S_IFCHR:
		if !isSink(st.Rdev) && !isTerminal(st.Rdev) {
			return fmt.Sprintf("is a device (%d:%d), and no terminal, /dev/null or /dev/full", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
	}
	return ""
}

// isSink reports whether a device is /dev/null, /dev/zero or /dev/full
// (Documentation/admin-guide/devices.txt).
func isSink(device uint64) bool {
	const memory = 1
	minor := unix.Minor(device)
	return unix.Major(device) == memory && (minor == 3 || minor == 5 || minor == 7)
}

// isTerminal asks sysfs, which knows the terminals of all drivers. Without sysfs those of the
// virtual consoles, serial lines and pseudoterminals are known by their numbers.
func isTerminal(device uint64) bool {
	major := unix.Major(device)
	class, err := os.Readlink(fmt.Sprintf("/sys/dev/char/%d:%d/subsystem", major, unix.Minor(device)))
	if err == nil {
		return filepath.Base(class) == "tty"
	}
	return major == 4 || major == 5 || major >= 136 && major <= 143
}
