package tcp

import (
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Role is what a socket is in its connection, known from how it came to be.
type Role uint8

// RoleUnknown means that nothing has shown the role yet.
const (
	RoleUnknown Role = iota
	RoleClient
	RoleServer
	RoleListener
)

var roleNames = [...]string{RoleClient: "client", RoleServer: "server", RoleListener: "listener"}

// String gives the name used in records, or "" for RoleUnknown.
func (r Role) String() string {
	if int(r) < len(roleNames) {
		return roleNames[r]
	}
	return "ROLE_" + strconv.Itoa(int(r))
}

// ParseRole finds a role by its name in records.
func ParseRole(name string) (Role, bool) {
	for r, n := range roleNames {
		if n != "" && n == name {
			return Role(r), true
		}
	}
	return RoleUnknown, false
}

// PIDSource is how a socket's owner is known.
type PIDSource uint8

// PIDUnknown means that the owner is not known.
const (
	PIDUnknown PIDSource = iota
	PIDTask              // it held the socket's lock at this transition
)

var pidSourceNames = [...]string{PIDTask: "task"}

// String gives the name used in records, or "" for PIDUnknown.
func (s PIDSource) String() string {
	if int(s) < len(pidSourceNames) {
		return pidSourceNames[s]
	}
	return "PID_SOURCE_" + strconv.Itoa(int(s))
}

// Errno is a socket's pending error (sk_err), 0 for none.
type Errno uint32

// String gives the symbol, such as ECONNRESET, or ERRNO_n for an unknown number.
func (e Errno) String() string {
	if name := unix.ErrnoName(unix.Errno(e)); name != "" {
		return name
	}
	return "ERRNO_" + strconv.FormatUint(uint64(e), 10)
}

// Endpoint is one end of a connection. An invalid address or a port of 0 means
// that the kernel does not have it yet.
type Endpoint struct {
	Addr netip.Addr
	Port uint16
}

// Comm is a process name as the kernel keeps it: up to 15 bytes of any value, NUL
// after the last.
type Comm [16]byte

// Bytes is the name without what follows its first NUL.
func (c *Comm) Bytes() []byte {
	for i, b := range c {
		if b == 0 {
			return c[:i]
		}
	}
	return c[:]
}

// Owner is the process that a socket belongs to. Source is PIDUnknown where it is
// not known, and then PID and Comm mean nothing.
type Owner struct {
	PID    uint32 // thread group id in the initial pid namespace
	Comm   Comm   // of the thread group's leader
	Source PIDSource
}

// Transition is one firing of the tracepoint sock:inet_sock_set_state.
type Transition struct {
	Time      time.Time     // wall clock; set by whoever knows the clock's offset
	Monotonic time.Duration // CLOCK_MONOTONIC, as the kernel took it
	Cookie    uint64        // 0: this kernel gives none
	Local     Endpoint
	Peer      Endpoint
	Netns     uint32 // inode number
	UID       uint32 // in the initial user namespace
	Owner     Owner
	Error     Errno
	Old, New  State
	Role      Role
	Mapped    bool // IPv4 over an IPv6 socket
	IPv6      bool
}
