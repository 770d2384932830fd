// Package expect is the table of what each kernel gives that is tested: its test
// in the guest holds the kernel against it, and docs/kernels.md is made from it.
// What changes here changes what users are promised. It must not look at any kernel
// itself.
package expect

import (
	"regexp"
	"slices"
)

// The features by their names in start.features.
const (
	SocketStorage = "socket_storage"
	SocketCookie  = "socket_cookie"
	SocketScan    = "socket_scan"
	AcceptHook    = "accept_hook"
	TimeWaitEnds  = "time_wait_ends"
)

// What some tests need besides.
const (
	MPTCP          = "mptcp"
	QueueMigration = "queue_migration" // net.ipv4.tcp_migrate_req, since 5.14
	IOUring        = "io_uring"
	SocketDiag     = "socket_diag" // what ss asks: a module, and guests have none
	Cgroups        = "cgroups"
	DeadOwners     = "dead_owners"    // an orphan's owner is told after its process has died, since 6.2
	LongTimeWait   = "long_time_wait" // no feature: a minute is only waited for on one kernel of each kind
	OwnTable       = "own_table"      // no feature: a network namespace with a hash table of its own, since 6.1
)

// OnlyWaits is a test that does nothing for a minute: guests run it beside the others.
const OnlyWaits = "TestTimewait_LastsOneMinute"

// Row is one kernel on one architecture.
type Row struct {
	Line     string // such as 6.12
	Arch     string // as Go calls it
	Features []string
	Lacking  []string // of what only tests need

	AcceptArguments int  // of inet_csk_accept()
	TableByNetns    bool // the hash table is found from the namespace, else from the protocol
	EmptyChild      bool // LISTEN to SYN_RECV comes before the child has a peer
	// The kernel preempts a tracing program in favour of another task, whose own
	// events then meet that program busy.
	PreemptsPrograms bool
	Instructions     bool // the kernel tells how many the verifier has walked, since 5.16
}

// Gives tells whether the kernel has the feature.
func (r *Row) Gives(feature string) bool { return slices.Contains(r.Features, feature) }

// Lacks tells whether a test may be left out for want of a feature or another thing.
func (r *Row) Lacks(what string) bool {
	if slices.Contains([]string{SocketStorage, SocketCookie, SocketScan, AcceptHook, TimeWaitEnds}, what) {
		return !r.Gives(what)
	}
	return slices.Contains(r.Lacking, what)
}

// Lines are the kernels tested, the oldest first.
var Lines = []string{"5.10", "6.1", "6.12", "6.18", "7.1"}

// Arches are the architectures tested.
var Arches = []string{"amd64", "arm64"}

// MaxInstructions is the most that the verifier may walk of one program. It gives
// up at a million; the rest is room for kernels that prune less.
const MaxInstructions = 500_000

// Table has a row for every line and architecture. On arm64 the kernel attaches
// no trampolines before 6.4.
var Table = []Row{
	{Line: "5.10", Arch: "amd64", Features: []string{TimeWaitEnds}, Lacking: []string{DeadOwners, SocketDiag, MPTCP, QueueMigration, OwnTable}, AcceptArguments: 4, TableByNetns: true, EmptyChild: true},
	{Line: "5.10", Arch: "arm64", Features: []string{TimeWaitEnds}, Lacking: []string{DeadOwners, SocketDiag, MPTCP, QueueMigration, LongTimeWait, OwnTable}, AcceptArguments: 4, TableByNetns: true, EmptyChild: true},
	{Line: "6.1", Arch: "amd64", Features: []string{SocketStorage, SocketCookie, SocketScan, AcceptHook, TimeWaitEnds}, Lacking: []string{DeadOwners, SocketDiag, LongTimeWait},
		AcceptArguments: 4, TableByNetns: true, EmptyChild: true, Instructions: true},
	{Line: "6.1", Arch: "arm64", Features: []string{SocketStorage, SocketCookie, SocketScan, TimeWaitEnds}, Lacking: []string{DeadOwners, SocketDiag},
		AcceptArguments: 4, TableByNetns: true, EmptyChild: true, Instructions: true},
	{Line: "6.12", Arch: "amd64", Features: []string{SocketStorage, SocketCookie, SocketScan, AcceptHook, TimeWaitEnds}, Lacking: []string{SocketDiag},
		AcceptArguments: 2, TableByNetns: true, EmptyChild: true, Instructions: true},
	{Line: "6.12", Arch: "arm64", Features: []string{SocketStorage, SocketCookie, SocketScan, AcceptHook, TimeWaitEnds}, Lacking: []string{SocketDiag, LongTimeWait},
		AcceptArguments: 2, TableByNetns: true, EmptyChild: true, Instructions: true},
	{Line: "6.18", Arch: "amd64", Features: []string{SocketStorage, SocketCookie, SocketScan, AcceptHook, TimeWaitEnds}, Lacking: []string{SocketDiag, LongTimeWait},
		AcceptArguments: 2, TableByNetns: true, Instructions: true},
	{Line: "6.18", Arch: "arm64", Features: []string{SocketStorage, SocketCookie, SocketScan, AcceptHook, TimeWaitEnds}, Lacking: []string{SocketDiag, LongTimeWait},
		AcceptArguments: 2, TableByNetns: true, Instructions: true},
	{Line: "7.1", Arch: "amd64", Features: []string{SocketStorage, SocketCookie, SocketScan, AcceptHook, TimeWaitEnds}, Lacking: []string{SocketDiag, LongTimeWait},
		AcceptArguments: 2, TableByNetns: true, PreemptsPrograms: true, Instructions: true},
	{Line: "7.1", Arch: "arm64", Features: []string{SocketStorage, SocketCookie, SocketScan, AcceptHook, TimeWaitEnds}, Lacking: []string{SocketDiag},
		AcceptArguments: 2, TableByNetns: true, PreemptsPrograms: true, Instructions: true},
}

// debianCloud is the release of the kernels that the rows are about: others of the
// same version may be built without something.
var debianCloud = regexp.MustCompile(`^(\d+\.\d+)\.\d+(?:-\d+|\+deb\d+)-cloud-(amd64|arm64)$`)

// ForRelease finds the row of a running kernel by its release (uname -r).
func ForRelease(release string) (Row, bool) {
	m := debianCloud.FindStringSubmatch(release)
	if m == nil {
		return Row{}, false
	}
	return For(m[1], m[2])
}

// For finds the row of a line and an architecture.
func For(line, arch string) (Row, bool) {
	for _, r := range Table {
		if r.Line == line && r.Arch == arch {
			return r, true
		}
	}
	return Row{}, false
}
