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
	PIDUnknown  PIDSource = iota
	PIDTask               // it held the socket's lock at this transition
	PIDStored             // it did at an earlier one, and still has the socket
	PIDAccept             // it accepted the connection
	PIDListener           // it has the listener; who accepts is not known yet
	PIDScan               // it had the socket open when the tracer started
)

var pidSourceNames = [...]string{
	PIDTask: "task", PIDStored: "stored", PIDAccept: "accept", PIDListener: "listener", PIDScan: "scan",
}

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

// Cgroup is where a process runs.
type Cgroup struct {
	Path      string // below the hierarchy's mount
	Container string // its full id; "": it is no container's
	Runtime   string // docker, containerd, cri-o or podman; "": it cannot be told
	PodUID    string // of Kubernetes
}

// Transition is one firing of the tracepoint sock:inet_sock_set_state.
type Transition struct {
	Time      time.Time     // wall clock; set by whoever knows the clock's offset
	Monotonic time.Duration // CLOCK_MONOTONIC, as the kernel took it
	Cookie    uint64        // 0: this kernel gives none
	Local     Endpoint
	Peer      Endpoint
	Netns     uint32 // inode number
	UID       uint32 // of the socket, in the initial user namespace
	Owner     Owner
	CgroupID  uint64  // the owner's, else the socket's; 0: not known
	Cgroup    *Cgroup // set by whoever knows the ids; nil: not known
	Error     Errno
	Old, New  State // New is TimeWait where the kernel's CLOSE left a timewait socket
	Role      Role
	Mapped    bool // IPv4 over an IPv6 socket
	IPv6      bool

	InState      time.Duration // spent in Old; 0: not known
	Substate     State         // of the timewait socket: FinWait2 or TimeWait; 0: there is none
	TimeWaitOpen bool          // whether there is one could not be found out
	Locked       bool          // a task held the socket's lock
	PeerFIN      bool          // the peer's FIN has come
	NoLinger2    bool          // TCP_LINGER2 is negative
	Orphan       bool          // no process has the socket any more, or not yet
	Unsent       bool          // connect() failed before there was a SYN
	Acked        bool          // all that was sent is acknowledged, the FIN included
	Repair       bool          // TCP_REPAIR: nothing is sent
	Expired      bool          // a TIME_WAIT that its timer ended
}

// KernelNew is the new state as the kernel told it, which never tells TimeWait.
func (t *Transition) KernelNew() State {
	if t.New == TimeWait {
		return Close
	}
	return t.New
}

// TimeWaitEnd says that it is the end of a TIME_WAIT, which is not told by the
// tracepoint sock:inet_sock_set_state.
func (t *Transition) TimeWaitEnd() bool {
	return t.Old == TimeWait
}

// Self says that the socket stayed in its state; the kernel tells such too.
func (t *Transition) Self() bool {
	return t.Old == t.KernelNew()
}
