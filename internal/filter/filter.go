// Package filter is what an operator may ask to see: it parses the words of the
// command line into a Filter. It resolves names on the host (a path to a
// namespace or cgroup) but must not talk to BPF; internal/probe carries it there.
package filter

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Filter is a conjunction of its fields; each field wants one of its values, and
// an empty one wants everything.
type Filter struct {
	Family byte // 4, 6 or 0; a v4-mapped address is of family 4

	Ports, LocalPorts, PeerPorts []PortRange // Ports: either end
	Addrs, LocalAddrs, PeerAddrs []netip.Prefix

	PIDs    []uint32 // thread group ids in the initial pid namespace
	Comms   []string // exact, of the thread group's leader
	Netns   []uint32 // inode numbers
	Cgroups []uint64 // ids; a cgroup takes in those below it

	OldStates, NewStates []tcp.State
	Roles                []tcp.Role

	Transitions *tcp.Transitions // those of these pairs of states; nil: all
}

// PortRange is inclusive at both ends, 1 to 65535.
type PortRange struct {
	First, Last uint16
}

// ParseFamily takes 4 or 6.
func ParseFamily(word string) (byte, error) {
	if word == "4" || word == "6" {
		return word[0] - '0', nil
	}
	return 0, fmt.Errorf("%q is no address family: use 4 or 6", word)
}

// ParsePorts takes one port, or a range FIRST-LAST.
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
		return r, fmt.Errorf("range %q is upside down: write %d-%d", word, r.Last, r.First)
	}
	return r, nil
}

func parsePort(word string) (uint16, error) {
	port, err := strconv.ParseUint(word, 10, 16)
	if err != nil || port == 0 {
		return 0, fmt.Errorf("%q is no port: use 1 to 65535, or a range such as 8000-8999", word)
	}
	return uint16(port), nil
}

// ParseAddr takes an address or a CIDR without host bits; a v4-mapped one is read
// as the IPv4 that it stands for.
func ParseAddr(word string) (netip.Prefix, error) {
	if !strings.Contains(word, "/") {
		addr, err := netip.ParseAddr(word)
		if err != nil || addr.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%q is no address: use one such as 192.0.2.1, 2001:db8::1 or 10.0.0.0/8", word)
		}
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(word)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is no CIDR: use one such as 10.0.0.0/8 or 2001:db8::/32", word)
	}
	if masked := prefix.Masked(); masked != prefix {
		return netip.Prefix{}, fmt.Errorf("%q has host bits: write %s, or %s for that one address",
			word, masked, prefix.Addr())
	}
	if prefix.Addr().Is4In6() && prefix.Bits() >= 96 {
		prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96)
	}
	return prefix, nil
}

// ParsePID takes a process id of the initial pid namespace.
func ParsePID(word string) (uint32, error) {
	// PID_MAX_LIMIT, include/linux/threads.h
	const most = 4 << 20
	pid, err := strconv.ParseUint(word, 10, 32)
	if err != nil || pid == 0 || pid > most {
		return 0, fmt.Errorf("%q is no process id: use 1 to %d", word, most)
	}
	return uint32(pid), nil
}

// ParseComm takes a process name of 1 to 15 bytes, TASK_COMM_LEN less its NUL.
func ParseComm(word string) (string, error) {
	const most = 15
	switch {
	case word == "":
		return "", fmt.Errorf("a process name is 1 to %d bytes, not empty", most)
	case len(word) > most:
		return "", fmt.Errorf("%q has %d bytes, and the kernel keeps %d: write %q", word, len(word), most, word[:most])
	case strings.ContainsRune(word, 0):
		return "", fmt.Errorf("%q holds a NUL, where the kernel's name would end", word)
	}
	return word, nil
}

// ParseState takes a state by the kernel's name.
func ParseState(word string) (tcp.State, error) {
	if s, ok := tcp.ParseState(word); ok {
		return s, nil
	}
	return 0, fmt.Errorf("%q is no state: use %s", word, join(tcp.States()))
}

// ParseRole takes a role by its name.
func ParseRole(word string) (tcp.Role, error) {
	if r, ok := tcp.ParseRole(word); ok {
		return r, nil
	}
	return 0, fmt.Errorf("%q is no role: use %s", word,
		join([]tcp.Role{tcp.RoleClient, tcp.RoleServer, tcp.RoleListener}))
}

func join[T fmt.Stringer](values []T) string {
	names := make([]string, len(values))
	for i, v := range values {
		names[i] = v.String()
	}
	return strings.Join(names, ", ")
}

// List parses words separated by commas, and appends the values to those that an
// earlier use of the same flag gave.
func List[T comparable](values *[]T, words string, parse func(string) (T, error)) error {
	for word := range strings.SplitSeq(words, ",") {
		if err := Add(values, strings.TrimSpace(word), parse); err != nil {
			return err
		}
	}
	return nil
}

// Add is List for one word that may hold any byte, commas and spaces too.
func Add[T comparable](values *[]T, word string, parse func(string) (T, error)) error {
	v, err := parse(word)
	if err == nil && !slices.Contains(*values, v) {
		*values = append(*values, v)
	}
	return err
}
