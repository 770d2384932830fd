// Package expect is the table of what each tested kernel has. TestKernel_Features
// compares the kernel of a guest with its row, and docs/kernels.md is made from the
// table: a change here changes what users are promised. The package must not look at
// any kernel.
package expect

import (
	"regexp"
	"slices"
)

// The features, by their names in start.features.
const (
	SocketStorage = "socket_storage"
	SocketCookie  = "socket_cookie"
	SocketScan    = "socket_scan"
	AcceptHook    = "accept_hook"
	ReadHook      = "read_hook"
	TimeWaitEnds  = "time_wait_ends"
	ResetReceived = "reset_received"
	ResetSent     = "reset_sent"
	LiveUpdates   = "live_updates"
)

// What some tests need in addition.
const (
	MPTCP          = "mptcp"
	Compat         = "compat"          // 32-bit processes
	X32            = "x32"             // the x32 ABI, which Debian does not build
	QueueMigration = "queue_migration" // net.ipv4.tcp_migrate_req, since 5.14
	IOUring        = "io_uring"
	SocketDiag     = "socket_diag" // what ss uses: a module, which guests do not have
	Cgroups        = "cgroups"
	DeadOwners     = "dead_owners"    // the tracer knows an orphan's owner after that process has exited, since 6.2
	LongTimeWait   = "long_time_wait" // not about the kernel: it leaves OnlyWaits out where InShortForm is false
	OwnTable       = "own_table"      // a network namespace can have its own hash table, since 6.1
	OwnOptmem      = "own_optmem"     // net.core.optmem_max is of a network namespace, since 6.9
)

// OnlyWaits is the name of the test that does nothing for a minute: guests run it at the
// same time as the others.
const OnlyWaits = "TestTimewait_LastsOneMinute"

// Row is one kernel on one architecture.
type Row struct {
	Version  string // of the kernel, such as 6.12
	Arch     string // GOARCH
	Features []string
	Lacking  []string // what only tests need

	AcceptArguments int  // of inet_csk_accept()
	TableByNetns    bool // the hash table is found through the namespace, else through the protocol
	EmptyChild      bool // LISTEN to SYN_RECV fires before the child has a peer
	// The kernel may preempt a tracing program, since 7.0. The program then misses the events
	// of the task that preempts it, so a third program must be loaded for each tracepoint.
	PreemptsPrograms bool
	Instructions     bool // the kernel reports how many instructions the verifier processed, since 5.16
}

// HasFeature reports whether the kernel has the feature.
func (r *Row) HasFeature(feature string) bool { return slices.Contains(r.Features, feature) }

// Lacks reports whether the kernel lacks what: a feature, or something that only tests
// need. A test that needs it may be skipped.
func (r *Row) Lacks(what string) bool {
	if slices.Contains([]string{SocketStorage, SocketCookie, SocketScan, AcceptHook, ReadHook, TimeWaitEnds, ResetReceived, ResetSent, LiveUpdates}, what) {
		return !r.HasFeature(what)
	}
	return slices.Contains(r.Lacking, what)
}

// InShortForm reports whether the short form of the matrix has this kernel: one kernel of each
// kind, and both architectures. 6.12 and 6.18 have nothing that neither 6.1 nor 7.1 has.
func (r *Row) InShortForm() bool { return !r.Lacks(LongTimeWait) }

// KernelVersions are the versions of the tested kernels, the oldest first.
var KernelVersions = []string{"5.10", "6.1", "6.12", "6.18", "7.1"}

// Arches are the tested architectures.
var Arches = []string{"amd64", "arm64"}

// MaxInstructions bounds the instructions that the verifier may process for one
// program. Its own limit is a million; the rest is room for kernels that prune less.
const MaxInstructions = 150_000

// Table has a row for every version and architecture. On arm64 the kernel has no
// trampolines for fexit before 6.4.
var Table = []Row{
	{Version: "5.10", Arch: "amd64", Features: []string{TimeWaitEnds, ResetReceived, ResetSent}, Lacking: []string{DeadOwners, SocketDiag, MPTCP, QueueMigration, OwnTable, OwnOptmem, X32}, AcceptArguments: 4, TableByNetns: true, EmptyChild: true},
	{Version: "5.10", Arch: "arm64", Features: []string{TimeWaitEnds, ResetReceived, ResetSent}, Lacking: []string{DeadOwners, SocketDiag, MPTCP, QueueMigration, LongTimeWait, OwnTable, OwnOptmem}, AcceptArguments: 4, TableByNetns: true, EmptyChild: true},
	{Version: "6.1", Arch: "amd64", Features: []string{SocketStorage, SocketCookie, SocketScan, AcceptHook, ReadHook, TimeWaitEnds, ResetReceived, ResetSent, LiveUpdates}, Lacking: []string{DeadOwners, SocketDiag, OwnOptmem, LongTimeWait, X32},
		AcceptArguments: 4, TableByNetns: true, EmptyChild: true, Instructions: true},
	{Version: "6.1", Arch: "arm64", Features: []string{SocketStorage, SocketCookie, SocketScan, ReadHook, TimeWaitEnds, ResetReceived, ResetSent, LiveUpdates}, Lacking: []string{DeadOwners, SocketDiag, OwnOptmem},
		AcceptArguments: 4, TableByNetns: true, EmptyChild: true, Instructions: true},
	{Version: "6.12", Arch: "amd64", Features: []string{SocketStorage, SocketCookie, SocketScan, AcceptHook, ReadHook, TimeWaitEnds, ResetReceived, ResetSent, LiveUpdates}, Lacking: []string{SocketDiag, LongTimeWait, X32},
		AcceptArguments: 2, TableByNetns: true, EmptyChild: true, Instructions: true},
	{Version: "6.12", Arch: "arm64", Features: []string{SocketStorage, SocketCookie, SocketScan, AcceptHook, ReadHook, TimeWaitEnds, ResetReceived, ResetSent, LiveUpdates}, Lacking: []string{SocketDiag, LongTimeWait},
		AcceptArguments: 2, TableByNetns: true, EmptyChild: true, Instructions: true},
	{Version: "6.18", Arch: "amd64", Features: []string{SocketStorage, SocketCookie, SocketScan, AcceptHook, ReadHook, TimeWaitEnds, ResetReceived, ResetSent, LiveUpdates}, Lacking: []string{SocketDiag, LongTimeWait, X32},
		AcceptArguments: 2, TableByNetns: true, Instructions: true},
	{Version: "6.18", Arch: "arm64", Features: []string{SocketStorage, SocketCookie, SocketScan, AcceptHook, ReadHook, TimeWaitEnds, ResetReceived, ResetSent, LiveUpdates}, Lacking: []string{SocketDiag, LongTimeWait},
		AcceptArguments: 2, TableByNetns: true, Instructions: true},
	{Version: "7.1", Arch: "amd64", Features: []string{SocketStorage, SocketCookie, SocketScan, AcceptHook, ReadHook, TimeWaitEnds, ResetReceived, ResetSent, LiveUpdates}, Lacking: []string{SocketDiag, X32},
		AcceptArguments: 2, TableByNetns: true, PreemptsPrograms: true, Instructions: true},
	{Version: "7.1", Arch: "arm64", Features: []string{SocketStorage, SocketCookie, SocketScan, AcceptHook, ReadHook, TimeWaitEnds, ResetReceived, ResetSent, LiveUpdates}, Lacking: []string{SocketDiag, LongTimeWait},
		AcceptArguments: 2, TableByNetns: true, PreemptsPrograms: true, Instructions: true},
}

// debianCloud matches the releases of the kernels in the table. Other kernels of these
// versions may be built without some options.
var debianCloud = regexp.MustCompile(`^(\d+\.\d+)\.\d+(?:-\d+|\+deb\d+)-cloud-(amd64|arm64)$`)

// ForRelease returns the row of a kernel by its release (uname -r).
func ForRelease(release string) (Row, bool) {
	m := debianCloud.FindStringSubmatch(release)
	if m == nil {
		return Row{}, false
	}
	return For(m[1], m[2])
}

// For returns the row of a kernel version and an architecture.
func For(version, arch string) (Row, bool) {
	for _, r := range Table {
		if r.Version == version && r.Arch == arch {
			return r, true
		}
	}
	return Row{}, false
}
