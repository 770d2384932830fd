package limits

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tcpshift/tcpshift/internal/safeopen"
)

// tcpCounters reads the counters of these names (LINUX_MIB_*) of the namespace that the calling thread is in, since
// the namespace was made. The error names the counter that the kernel does not have, or the file.
func tcpCounters(names ...string) ([]uint64, error) {
	// /proc/net would show the namespace of the process's main thread.
	b, err := safeopen.ReadFile("/proc/thread-self/net/netstat")
	if err != nil {
		return nil, fmt.Errorf("read the counters of TCP: %w", err)
	}
	return parseTCPCounters(b, names)
}

// parseTCPCounters parses pairs of lines: the names, and the numbers below them.
func parseTCPCounters(netstat []byte, names []string) ([]uint64, error) {
	const prefix = "TcpExt: "
	var lines [][]string
	for line := range bytes.Lines(netstat) {
		if rest, ok := strings.CutPrefix(string(line), prefix); ok {
			lines = append(lines, strings.Fields(rest))
		}
	}
	numbers := make([]uint64, len(names))
	for i, name := range names {
		at := -1
		if len(lines) == 2 {
			at = slices.Index(lines[0], name)
		}
		if at < 0 || at >= len(lines[1]) {
			return nil, fmt.Errorf("read the counters of TCP: there is no %s", name)
		}
		n, err := strconv.ParseUint(lines[1][at], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("read the counters of TCP: %w", err)
		}
		numbers[i] = n
	}
	return numbers, nil
}
