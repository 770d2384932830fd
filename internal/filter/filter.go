// Package filter parses the filters of the command line. It looks up what a word names
// on this host, such as the path of a namespace or cgroup, but it must not use BPF:
// package probe passes a Filter to the kernel.
package filter

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Filter selects transitions. A transition passes if each field that is not empty has a
// value that matches, and Not has none. What is not known matches no value.
type Filter struct {
	Family byte // 4, 6, or 0 for both; a v4-mapped address is of family 4

	Ports, LocalPorts, PeerPorts []PortRange    // Ports: the local or the peer port
	Addrs, LocalAddrs, PeerAddrs []netip.Prefix // Addrs: the local or the peer address

	PIDs    []uint32 // thread group ids in the initial pid namespace
	Comms   []string // exact names of thread group leaders
	Netns   []uint32 // inode numbers
	Cgroups []uint64 // cgroup v2 ids; the socket was created in that cgroup or below it, wherever its owner is now
	UIDs    []uint32 // users that the socket belongs to, in the initial user namespace
	// Children passes the sockets of processes that this process has started since the programs
	// are attached, and of all their descendants, also after these processes have ended.
	Children bool

	Not Exclusions

	OldStates, NewStates []tcp.State
	Roles                []tcp.Role

	Transitions *tcp.Transitions // pairs of old and new state; nil: all
	// ExcludeOrphanFinWait2 leaves out transitions to FIN_WAIT2 of sockets that no process has.
	ExcludeOrphanFinWait2 bool
}

// Exclusions are values that do not pass, as the fields of [Filter] with the same names are values
// that pass.
type Exclusions struct {
	Ports, LocalPorts, PeerPorts []PortRange
	Addrs, LocalAddrs, PeerAddrs []netip.Prefix

	PIDs    []uint32
	Comms   []string
	Netns   []uint32
	Cgroups []uint64
	UIDs    []uint32
}

// PortRange is the ports from First to Last, both included. They are 1 to 65535.
type PortRange struct {
	First, Last uint16
}

// ParseFamily parses an address family, "4" or "6", and returns the number 4 or 6.
func ParseFamily(word string) (byte, error) {
	if word == "4" || word == "6" {
		return word[0] - '0', nil
	}
	return 0, fmt.Errorf("%q is not an address family: use 4 or 6", word)
}

// ParsePorts parses a port, or a range FIRST-LAST.
func ParsePorts(word string) (PortRange, error) {
	first, last, isRange := strings.Cut(word, "-")
	r := PortRange{}
	var err error
	if r.First, err = parsePort(first); err != nil {
		return r, err
	}
	r.Last = r.First
	if !isRange {
		return r, nil
	}
	if r.Last, err = parsePort(last); err != nil {
		return r, err
	}
	if r.First > r.Last {
		return r, fmt.Errorf("range %q is reversed: write %d-%d", word, r.Last, r.First)
	}
	return r, nil
}

func parsePort(word string) (uint16, error) {
	port, err := strconv.ParseUint(word, 10, 16)
	if err != nil || port == 0 {
		return 0, fmt.Errorf("%q is not a port: use 1 to 65535, or a range such as 8000-8999", word)
	}
	return uint16(port), nil
}

// ParseAddr parses an address, or a CIDR without host bits. A v4-mapped one becomes its
// IPv4 address or prefix.
func ParseAddr(word string) (netip.Prefix, error) {
	if !strings.Contains(word, "/") {
		addr, err := netip.ParseAddr(word)
		if err != nil || addr.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%q is not an address: use one such as 192.0.2.1, 2001:db8::1 or 10.0.0.0/8", word)
		}
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(word)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not a CIDR: use one such as 10.0.0.0/8 or 2001:db8::/32", word)
	}
	if masked := prefix.Masked(); masked != prefix {
		return netip.Prefix{}, fmt.Errorf("%q has host bits: write %s, or %s for that single address",
			word, masked, prefix.Addr())
	}
	if prefix.Addr().Is4In6() && prefix.Bits() >= 96 {
		prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96)
	}
	return prefix, nil
}

// ParsePID parses a process id of the initial pid namespace: a decimal number from 1 to 4194304, the
// kernel's PID_MAX_LIMIT. It does not check that the process exists.
func ParsePID(word string) (uint32, error) {
	const most = 4 << 20 // PID_MAX_LIMIT in include/linux/threads.h
	pid, err := strconv.ParseUint(word, 10, 32)
	if err != nil || pid == 0 || pid > most {
		return 0, fmt.Errorf("%q is not a process id: use 1 to %d", word, most)
	}
	return uint32(pid), nil
}

// ParseComm parses a process name of 1 to 15 bytes.
func ParseComm(word string) (string, error) {
	const most = 15 // TASK_COMM_LEN without the NUL
	switch {
	case word == "":
		return "", fmt.Errorf("the process name is empty: use 1 to %d bytes", most)
	case len(word) > most:
		return "", fmt.Errorf("%q has %d bytes, but the kernel keeps only %d: write %q", word, len(word), most, word[:most])
	case strings.ContainsRune(word, 0):
		return "", fmt.Errorf("%q contains a NUL, which ends a name in the kernel", word)
	}
	return word, nil
}

// ParseState parses the name of a state, as [tcp.ParseState] does.
func ParseState(word string) (tcp.State, error) {
	if s, ok := tcp.ParseState(word); ok {
		return s, nil
	}
	return 0, fmt.Errorf("%q is not a state: use %s", word, join(tcp.States()))
}

// ParseRole parses client, server or listener.
func ParseRole(word string) (tcp.Role, error) {
	if r, ok := tcp.ParseRole(word); ok {
		return r, nil
	}
	return 0, fmt.Errorf("%q is not a role: use %s", word,
		join([]tcp.Role{tcp.RoleClient, tcp.RoleServer, tcp.RoleListener}))
}

func join[T fmt.Stringer](values []T) string {
	names := make([]string, len(values))
	for i, v := range values {
		names[i] = v.String()
	}
	return strings.Join(names, ", ")
}

// AppendList parses words that are separated by commas, and appends each value to *values
// unless it is there already, so that a flag can be repeated. After an error *values may
// contain some of the values.
func AppendList[T comparable](values *[]T, words string, parse func(string) (T, error)) error {
	for word := range strings.SplitSeq(words, ",") {
		if err := AppendOne(values, strings.TrimSpace(word), parse); err != nil {
			return err
		}
	}
	return nil
}

// AppendOne is like AppendList, for a single word, which may contain commas and spaces.
func AppendOne[T comparable](values *[]T, word string, parse func(string) (T, error)) error {
	v, err := parse(word)
	if err == nil && !slices.Contains(*values, v) {
		*values = append(*values, v)
	}
	return err
}
