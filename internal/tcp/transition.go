package tcp

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Role is what a socket is in its connection.
type Role uint8

// The roles.
const (
	RoleUnknown  Role = iota // nothing has shown the role yet
	RoleClient               // it has called connect()
	RoleServer               // a listener created it, accepted or not
	RoleListener             // it listens
)

var roleNames = [...]string{RoleClient: "client", RoleServer: "server", RoleListener: "listener"}

// String gives the name used in records, "" for RoleUnknown, or ROLE_n for an unknown
// number.
func (r Role) String() string {
	if int(r) < len(roleNames) {
		return roleNames[r]
	}
	return "ROLE_" + strconv.Itoa(int(r))
}

// ParseRole finds a role by its name in records. RoleUnknown has none.
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

// The ways to know the owner of a socket.
const (
	PIDUnknown  PIDSource = iota // the owner is not known
	PIDTask                      // the owner owned the socket's lock at this transition
	PIDStored                    // it did at an earlier transition, and still has the socket open, or closed it last
	PIDAccept                    // it accepted the connection
	PIDListener                  // it has the listener; the process that will accept is not known yet
	PIDScan                      // it had the socket open when the tracer started
	PIDRead                      // it read from the connection
)

var pidSourceNames = [...]string{
	PIDTask: "task", PIDStored: "stored", PIDAccept: "accept", PIDListener: "listener", PIDScan: "scan", PIDRead: "read",
}

// String gives the name used in records, "" for PIDUnknown, or PID_SOURCE_n for an
// unknown number.
func (s PIDSource) String() string {
	if int(s) < len(pidSourceNames) {
		return pidSourceNames[s]
	}
	return "PID_SOURCE_" + strconv.Itoa(int(s))
}

// ParsePIDSource finds a way to know an owner by its name in records. PIDUnknown has none.
func ParsePIDSource(name string) (PIDSource, bool) {
	for s, n := range pidSourceNames {
		if n != "" && n == name {
			return PIDSource(s), true
		}
	}
	return PIDUnknown, false
}

// Errno is the pending error of a socket (sk_err); 0: none.
type Errno uint32

// String gives the symbol, such as ECONNRESET, or ERRNO_n for an unknown number.
func (e Errno) String() string {
	if name := unix.ErrnoName(unix.Errno(e)); name != "" {
		return name
	}
	return "ERRNO_" + strconv.FormatUint(uint64(e), 10)
}

// maxErrno is the largest error number of the kernel: MAX_ERRNO in include/linux/err.h.
const maxErrno = 4095

// ParseErrno finds an error by its String. 0 has none.
func ParseErrno(name string) (Errno, bool) {
	for e := Errno(1); e <= maxErrno; e++ {
		if e.String() == name {
			return e, true
		}
	}
	return 0, false
}

// Endpoint is one end of a connection. An invalid address, or port 0, means that the
// kernel has not set it yet.
type Endpoint struct {
	Addr netip.Addr
	Port uint16
}

// Comm is a process name as the kernel keeps it: up to 15 bytes of any value but NUL,
// and a NUL after the last.
type Comm [16]byte

// Bytes gives the name up to its first NUL, as a slice of c itself, which the caller must not
// change.
func (c *Comm) Bytes() []byte {
	for i, b := range c {
		if b == 0 {
			return c[:i]
		}
	}
	return c[:]
}

// Owner is the process that a socket belongs to. If Source is PIDUnknown, the other fields
// mean nothing.
type Owner struct {
	PID    uint32 // thread group id in the initial pid namespace
	Comm   Comm   // of the thread group's leader, the main thread
	Source PIDSource
}

// KnownPID is the pid, or 0 if the owner is not known.
func (o *Owner) KnownPID() uint32 {
	if o.Source == PIDUnknown {
		return 0
	}
	return o.PID
}

// Cgroup is where the owner runs, or, without an owner, where the socket was created: the cgroup in
// the v1 hierarchy for memory, pids or cpu if one is mounted, else in the unified hierarchy (cgroup
// v2).
type Cgroup struct {
	Path      string // below the hierarchy's mount
	Unit      string // name of the systemd service or scope; "": not in one
	Container string // full id; "": not in a container
	Runtime   string // docker, containerd, cri-o or podman; "": not known
	PodUID    string // of Kubernetes; "": not in a pod

	// ContainerClaimed and UnitClaimed report that a user other than root may have chosen the
	// name from which Container, Runtime and PodUID, or Unit, follow.
	ContainerClaimed, UnitClaimed bool

	// The names of the pod, its namespace, the container and the image; "": not known, or not yet.
	Pod, Namespace, ContainerName, Image string
}

// maxServiceName bounds what Service returns, in bytes.
const maxServiceName = 96

// Service names what runs in the cgroup: the systemd unit without its suffix, or else the container
// as its engine or, in a pod, its specification calls it. It is empty if neither is known. The units
// of logins and of their managers say nothing about what runs in them: they do not count. A unit whose
// name a user other than root may have chosen counts only without a container's name. A name of more
// than 96 bytes is cut and ends with "...".
func (c *Cgroup) Service() string {
	unit := c.serviceUnit()
	name := c.ContainerName
	if unit != "" && (!c.UnitClaimed || name == "" || c.ContainerClaimed) {
		name = unit
	}
	if len(name) > maxServiceName {
		return name[:maxServiceName-len("...")] + "..."
	}
	return name
}

// ServiceName names a service: what its cgroup is called, else what its main thread is called. cgroup may be nil: it is
// not known.
func ServiceName(cgroup *Cgroup, comm *Comm) string {
	if cgroup != nil {
		if name := cgroup.Service(); name != "" {
			return name
		}
	}
	return string(comm.Bytes())
}

// IsServiceClaimed reports whether a user other than root may have chosen what Service returns.
func (c *Cgroup) IsServiceClaimed() bool {
	if c.serviceUnit() != "" && !c.UnitClaimed {
		return false
	}
	if c.ContainerName != "" && !c.ContainerClaimed {
		return false
	}
	return c.Service() != ""
}

// serviceUnit is the unit without its suffix, or "" if there is none that says what runs in it.
func (c *Cgroup) serviceUnit() string {
	if IsLoginUnit(c.Unit) {
		return ""
	}
	return c.Unit[:max(0, strings.LastIndexByte(c.Unit, '.'))]
}

// IsLoginUnit reports whether a unit of systemd is that of a login or of a user's manager.
func IsLoginUnit(unit string) bool {
	return strings.HasPrefix(unit, "session-") || strings.HasPrefix(unit, "user@")
}

// Transition is one event of the tracepoint sock:inet_sock_set_state, or the end of a
// TIME_WAIT: see [Transition.IsTimeWaitEnd].
type Transition struct {
	Time      time.Time     // wall clock; zero until the trace loop sets it
	Monotonic time.Duration // CLOCK_BOOTTIME, taken in the kernel
	Cookie    uint64        // identifies the socket while the host is up; 0: not known, mostly because this kernel gives none
	Local     Endpoint
	Peer      Endpoint
	Netns     uint32 // inode number
	UID       uint32 // of the socket, in the initial user namespace
	Owner     Owner
	CgroupID  uint64  // the owner's, else the socket's; 0: not known
	Cgroup    *Cgroup // set by the trace loop, shared by all its transitions; nil: not known
	// Process is what /proc says of Owner. The trace loop sets it if an output's schema has it on every record, and
	// never changes it; nil: not known, or not yet.
	Process  *Process
	Error    Errno
	Old, New State // New is TimeWait where the kernel's CLOSE left a timewait socket
	Role     Role
	Mapped   bool // IPv4 on an IPv6 socket
	IPv6     bool // the addresses are IPv6; false if Mapped

	InState         time.Duration // spent in Old; 0: not known
	Substate        State         // of the timewait socket: FinWait2 or TimeWait; 0: there is none
	FinWait2Timeout time.Duration // until the timer of a timewait socket in FIN_WAIT2 expires, in full seconds, rounded up, at most 255; 0: not known
	PeerTimestamp   bool          // the timewait socket has a timestamp of the peer (tw_ts_recent_stamp)
	OwnPortRange    bool          // the socket is a client with its own range of local ports (IP_LOCAL_PORT_RANGE)
	TimeWaitUnknown bool          // to Close: there may be a timewait socket, the search was not conclusive
	Locked          bool          // a task owned the socket's lock
	PeerFIN         bool          // to Close or TimeWait, else false: the peer's FIN has been received
	NoLinger2       bool          // as PeerFIN: the socket option TCP_LINGER2 is negative
	NoProcess       bool          // no process has the socket open: it is not accepted yet, or all have closed it
	NoPort          bool          // SynSent to Close: inet_hash_connect() failed: no port was free, or the bound one is in use
	PortUnknown     bool          // SynSent to Close: it is not known whether connect() found a local port
	ListenFailed    bool          // Listen to Close: listen() failed, so the socket never listened
	Acked           bool          // as PeerFIN: all that was sent is acknowledged, including the FIN
	Repair          bool          // as PeerFIN: the socket is in repair mode (TCP_REPAIR), so it sends nothing
	Expired         bool          // at the end of a TIME_WAIT: its timer ended it

	// Of a transition to Close; see bpf/reset.h.
	TCPReset        bool      // tcp_reset() ran before the transition; it need not be the cause
	ResetSentBefore bool      // this side sent a reset before the transition: by a timer, ss -K or MPTCP
	ResetAwaited    bool      // a LateReset follows if this side sends one after the transition
	ResetSent       bool      // this side sent a reset after the transition; set by the trace loop
	ResetCode       ResetCode // of the reset that this side sent; 0: it sent none, or not known
	ResetReason     string    // the name of ResetCode; set by the trace loop
}

// KernelNew is the new state as the tracepoint reports it: it never reports TimeWait.
func (t *Transition) KernelNew() State {
	if t.New == TimeWait {
		return Close
	}
	return t.New
}

// IsTimeWaitEnd reports whether this is the end of a TIME_WAIT, which the tracepoint
// sock:inet_sock_set_state does not report.
func (t *Transition) IsTimeWaitEnd() bool {
	return t.Old == TimeWait
}

// IsSelfTransition reports whether the socket stayed in its state: the tracepoint reports that, too.
func (t *Transition) IsSelfTransition() bool {
	return t.Old == t.KernelNew()
}

// SampleApplies reports whether a sample of sockets decides about this one: listeners are in every
// sample, because there are few and each stands for many connections.
func (t *Transition) SampleApplies() bool {
	return t.Role != RoleListener
}
