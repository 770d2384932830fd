package limits

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/tcpshift/tcpshift/internal/safeopen"
)

// Counts are the kernel's own counts of the TCP sockets of one network namespace. They are read
// without a walk of the tables, which most namespaces share: a walk takes as long as there are
// sockets on the host.
type Counts struct {
	// Sockets has listeners and connections of both families, also those that no process has open
	// any more, but not those that are only bound, nor requests that are pending
	// (sock_prot_inuse_add() in net/ipv4/inet_hashtables.c).
	Sockets   int
	TimeWaits int // timewait sockets of both substates
}

// ReadCounts reads the counts of the namespace that the calling thread is in. The error names the
// file that could not be read or parsed.
func ReadCounts() (c Counts, err error) {
	if c.Sockets, c.TimeWaits, err = sockstat("sockstat", "TCP:"); err != nil {
		return Counts{}, err
	}
	sockets6, _, err := sockstat("sockstat6", "TCP6:")
	if errors.Is(err, os.ErrNotExist) { // the kernel has no IPv6
		return c, nil
	}
	c.Sockets += sockets6
	return c, err
}

// OnlyListeners reports whether all sockets are listeners. listeners is the number of listeners.
func (c Counts) OnlyListeners(listeners int) bool {
	return c.TimeWaits == 0 && c.Sockets == listeners
}

// sockstat reads the number of sockets of a protocol, and of its timewait sockets, 0 if the file has
// none, from a file of the calling thread's namespace.
func sockstat(name, protocol string) (sockets, timeWaits int, err error) {
	// /proc/net would show the namespace of the process's main thread.
	b, err := safeopen.ReadFile("/proc/thread-self/net/" + name)
	if err != nil {
		return 0, 0, fmt.Errorf("read the kernel's counts of sockets: %w", err)
	}
	sockets, timeWaits, ok := parseSockstat(b, protocol)
	if !ok {
		return 0, 0, fmt.Errorf("read the kernel's counts of sockets: %s has no numbers of %s", name, protocol)
	}
	return sockets, timeWaits, nil
}

// parseSockstat parses a line such as "TCP: inuse 5 orphan 0 tw 2 alloc 7 mem 1".
func parseSockstat(text []byte, protocol string) (sockets, timeWaits int, ok bool) {
	for line := range bytes.Lines(text) {
		fields := strings.Fields(string(line))
		if len(fields) == 0 || fields[0] != protocol {
			continue
		}
		sockets, ok = numberAfter(fields, "inuse")
		timeWaits, _ = numberAfter(fields, "tw")
		return sockets, timeWaits, ok
	}
	return 0, 0, false
}

func numberAfter(fields []string, name string) (n int, ok bool) {
	at := slices.Index(fields, name)
	if at < 0 || at+1 >= len(fields) {
		return 0, false
	}
	n, err := strconv.Atoi(fields[at+1])
	return n, err == nil
}
