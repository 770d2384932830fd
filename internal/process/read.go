package process

import (
	"bytes"
	"io"
	"os"
	"path"
	"strconv"
	"time"

	"github.com/tcpshift/tcpshift/internal/safeopen"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Bounds of what is read, in bytes.
const (
	maxFile = 4 << 10 // of stat, and of status, whose line Uid comes early
	maxExe  = 4 << 10 // PATH_MAX
)

// reader reads processes from /proc.
type reader struct {
	proc  string // the mount, "/proc"
	users *users
	args  *argsReader // nil: do not read the arguments
}

// read returns what /proc says of the process that had the pid at a time, which is CLOCK_BOOTTIME.
// It reports false if that process has ended. It reads through one descriptor of the process's
// directory, which leads to no other process, even if the pid is used again meanwhile.
func (r *reader) read(pid uint32, at time.Duration) (p tcp.Process, found bool) {
	root, err := safeopen.Root(path.Join(r.proc, strconv.FormatUint(uint64(pid), 10)))
	if err != nil {
		return p, false
	}
	defer root.Close()
	stat, ok := ParseStat(readFile(root, "stat", maxFile))
	if !ok || stat.Started > at || stat.State == 'X' {
		return p, false
	}
	p = tcp.Process{PID: pid, StartedAt: stat.Started, Parent: stat.Parent}
	if exe, err := root.Readlink("exe"); err == nil && len(exe) <= maxExe {
		p.Exe = exe
	}
	if uid, ok := effectiveUID(readFile(root, "status", maxFile)); ok {
		p.UID, p.UIDKnown, p.User = uid, true, r.users.name(uid)
	}
	if r.args != nil {
		p.Args, p.ArgsCut = r.args.read(root, p.UID)
	}
	return p, true
}

// readFile returns the beginning of a file, or nothing.
func readFile(root *os.Root, name string, maxBytes int64) []byte {
	f, err := root.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	return readUpTo(f, maxBytes)
}

// readUpTo returns the beginning of a file.
func readUpTo(f *os.File, maxBytes int64) []byte {
	b, _ := io.ReadAll(io.LimitReader(f, maxBytes))
	return b
}

// effectiveUID takes the second number of the line Uid of /proc/PID/status.
func effectiveUID(status []byte) (uint32, bool) {
	for line := range bytes.Lines(status) {
		if ids, found := bytes.CutPrefix(line, []byte("Uid:")); found {
			fields := bytes.Fields(ids)
			if len(fields) < 2 {
				return 0, false
			}
			uid, err := strconv.ParseUint(string(fields[1]), 10, 32)
			return uint32(uid), err == nil
		}
	}
	return 0, false
}
