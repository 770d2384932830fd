// Package limits reads the limits of a network namespace for TCP, and how much of them is
// used: sysctls, the kernel's counts, bound ports, timewait sockets. Its functions read
// the namespace that the calling thread is in. The package must not decide what these
// mean, nor keep anything.
package limits

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/tcpshift/tcpshift/internal/safeopen"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Read reads the limits of the namespace that the calling thread is in, except Bound,
// see [ReadBoundPorts], and BindBuckets. On a kernel before 6.14, which has no
// tcp_tw_reuse_delay, ReuseDelay is 1 s. TimeWaits and TimeWaitOverflows are -1 if the kernel's
// counts cannot be read. The error names the sysctl that could not be read.
func Read() (*tcp.Limits, error) {
	l := tcp.Limits{ReuseDelay: time.Second, Timestamps: true, TimeWaits: -1, BoundPartial: !listsBound(), ReusesFinWait2: reusesFinWait2()}
	if err := ports(&l); err != nil {
		return nil, err
	}
	for name, set := range map[string]func(int){
		"tcp_tw_reuse":       func(v int) { l.Reuse = v },
		"tcp_fin_timeout":    func(v int) { l.FinTimeout = time.Duration(v) * time.Second },
		"tcp_max_tw_buckets": func(v int) { l.MaxTimeWaits = v },
		"tcp_timestamps":     func(v int) { l.Timestamps = v != 0 },
		"tcp_tw_reuse_delay": func(v int) { l.ReuseDelay = time.Duration(v) * time.Millisecond }, // since Linux 6.14
	} {
		text, err := sysctl(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		v, err := strconv.Atoi(text)
		if err != nil {
			return nil, fmt.Errorf("read sysctl %s: %w", name, err)
		}
		set(v)
	}
	l.TimeWaits, l.TimeWaitOverflows = timeWaits(), timeWaitOverflows()
	return &l, nil
}

// ReadBoundPorts reads the local ports that sockets have bound explicitly, in the namespace
// that the calling thread is in: the ports of listeners and, since Linux 6.8, of sockets
// that are bound and not connected. It walks the kernel's tables of listeners, ports and
// connections. The error is from sock_diag.
func ReadBoundPorts() (*tcp.PortSet, error) {
	ports := &tcp.PortSet{}
	return ports, boundPorts(ports.Add)
}

// sysctl reads a sysctl of net.ipv4.
func sysctl(name string) (string, error) {
	b, err := safeopen.ReadFile("/proc/sys/net/ipv4/" + name)
	if err != nil {
		return "", fmt.Errorf("read sysctl: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// ports reads the range of ephemeral ports and the reserved ports in it.
func ports(l *tcp.Limits) error {
	text, err := sysctl("ip_local_port_range")
	if err != nil {
		return err
	}
	if _, err := fmt.Sscan(text, &l.PortLow, &l.PortHigh); err != nil {
		return fmt.Errorf("read sysctl ip_local_port_range: %w", err)
	}
	text, err = sysctl("ip_local_reserved_ports")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	l.Reserved = reserved(text, l.PortLow, l.PortHigh)
	return nil
}

// reserved parses a list such as 8080,9000-9010, and keeps the ports from low to high.
func reserved(list string, low, high uint16) *tcp.PortSet {
	ports := &tcp.PortSet{}
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(part), "-")
		from, err := strconv.ParseUint(first, 10, 16)
		if err != nil {
			continue // an empty list
		}
		to := from
		if isRange {
			if to, err = strconv.ParseUint(last, 10, 16); err != nil {
				continue
			}
		}
		for port := max(from, uint64(low)); port <= min(to, uint64(high)); port++ {
			ports.Add(uint16(port))
		}
	}
	return ports
}

// timeWaits is the kernel's own count of timewait sockets, of both substates; -1 if it
// cannot be read.
func timeWaits() int {
	_, timeWaits, err := sockstat("sockstat", "TCP:")
	if err != nil {
		return -1
	}
	return timeWaits
}

// timeWaitOverflows is the kernel's counter of connections that were closed without a timewait
// socket; -1 if it cannot be read.
func timeWaitOverflows() int64 {
	n, err := tcpCounters("TCPTimeWaitOverflow")
	if err != nil {
		return -1
	}
	return int64(n[0])
}
