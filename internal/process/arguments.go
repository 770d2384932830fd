package process

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"
)

const (
	maxArgs = 16 << 10 // bytes of cmdline that are read
	// maxText bounds Args: a record has no more of them.
	maxText = 1 << 10
	// argsFor is how long a process may take to let its arguments be read.
	argsFor = 250 * time.Millisecond
	// maxStuck bounds the threads that wait for arguments; each user keeps one at most.
	maxStuck = 4
)

// argsReader reads the arguments of processes. The kernel takes them from the memory of the process,
// under a lock (mmap_lock) that its threads can keep for ever: one of them reads a page of a FUSE
// file through /proc/self/mem. So another goroutine reads, which may get stuck. Then the arguments
// are not read of any process of that user, until that goroutine is free.
type argsReader struct {
	patterns []*regexp.Regexp // of what is replaced besides what may be a secret

	mu    sync.Mutex
	stuck map[uint32]bool // the users whose arguments a goroutine waits for
}

// read returns what [arguments] returns for a process of a user. root is the process's directory. If
// the arguments cannot be read in time, they are cut to nothing.
func (r *argsReader) read(root *os.Root, uid uint32) (args []string, cut bool) {
	file, err := root.Open("cmdline")
	if err != nil {
		return nil, false
	}
	b, ok := r.readFile(file, uid)
	if !ok {
		return nil, true
	}
	return arguments(b, r.limit(), r.patterns)
}

// limit is how many bytes of cmdline are read.
func (r *argsReader) limit() int {
	if len(r.patterns) > 0 {
		return maxMatched
	}
	return maxArgs
}

// readFile reads the beginning of a file, which it closes, for a process of a user. It reports false
// if that takes too long.
func (r *argsReader) readFile(file *os.File, uid uint32) (cmdline []byte, ok bool) {
	if !r.begin(uid) {
		_ = file.Close() // nothing was written
		return nil, false
	}
	limit := time.NewTimer(argsFor)
	defer limit.Stop()
	read := make(chan []byte, 1)
	go func() {
		b := readUpTo(file, int64(r.limit()))
		_ = file.Close() // nothing was written
		r.end(uid)
		read <- b
	}()
	select {
	case b := <-read:
		return b, true
	case <-limit.C:
		return nil, false
	}
}

// begin reports whether the arguments of a process of this user may be read.
func (r *argsReader) begin(uid uint32) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stuck[uid] || len(r.stuck) >= maxStuck {
		return false
	}
	if r.stuck == nil {
		r.stuck = make(map[uint32]bool)
	}
	r.stuck[uid] = true
	return true
}

func (r *argsReader) end(uid uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.stuck, uid)
}

// arguments returns the arguments in /proc/PID/cmdline, without secrets. Of a text as long as limit the
// last one is left out, because it may be part of a secret that does not look like one; cut reports that,
// or that the arguments were longer than maxText.
func arguments(cmdline []byte, limit int, patterns []*regexp.Regexp) (args []string, cut bool) {
	if cut = len(cmdline) >= limit; cut {
		cmdline = cmdline[:max(0, bytes.LastIndexByte(cmdline, 0))]
	}
	if cmdline = bytes.TrimRight(cmdline, "\x00"); len(cmdline) == 0 {
		return nil, cut
	}
	for arg := range bytes.SplitSeq(cmdline, []byte{0}) {
		args = append(args, string(arg))
	}
	args, isCut := cutList(redact(args, patterns))
	return args, cut || isCut
}

// cutList cuts a list to maxText bytes, with one between two strings.
func cutList(list []string) (_ []string, cut bool) {
	room := maxText
	for i, s := range list {
		if i > 0 {
			room--
		}
		if len(s) > room {
			list = list[:i]
			if room > 0 {
				list = append(list, strings.Clone(s[:room]))
			}
			return list, true
		}
		room -= len(s)
	}
	return list, false
}
