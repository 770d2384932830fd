package sandbox

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"

	"github.com/landlock-lsm/go-landlock/landlock"
	llsyscall "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	seccomp "github.com/elastic/go-seccomp-bpf"
)

// The names of the parts of the sandbox, as in the key features of a start record.
const (
	Seccomp  = "sandbox_seccomp"
	Landlock = "sandbox_landlock"
)

// Part is a part of the sandbox: a filter of system calls (Seccomp), or rules for files, signals
// and TCP ports (Landlock).
type Part struct {
	Name string
	Err  error // why it is off; nil: it is on
	// Expected means that the features that are on exclude this part, whatever the kernel has.
	Expected bool
}

// Restrict confines this process to what a trace with these features does from now on, in every
// thread and for good. What the kernel does not have is left out: the result has the reason.
// DropPrivileges must have run. If it could not set no_new_privs, the filter of system calls needs
// CAP_SYS_ADMIN.
func Restrict(f Features) []Part {
	files := Part{Name: Landlock}
	if f.Namespaces {
		files.Err, files.Expected = errSearchesProcesses, true
	} else {
		files.Err = restrictFiles(f)
	}
	return []Part{{Name: Seccomp, Err: restrictCalls(f)}, files}
}

// errSearchesProcesses is why Landlock is off while namespaces are searched for. A process under
// Landlock may not inspect one that is not under the same rules (hook_ptrace_access_check in
// security/landlock/ptrace.c): it cannot read the links in /proc/PID/ns and /proc/PID/fd. No rule
// and no capability permits that. Threads cannot be excluded: in Go any thread may run any
// goroutine, and starts threads with its own rules.
var errSearchesProcesses = errors.New("alerts, updates and metrics search the namespaces of other processes, which Landlock does not permit")

// Available returns which parts this kernel has, without restricting anything.
func Available() []Part {
	calls, files := Part{Name: Seccomp}, Part{Name: Landlock}
	if !seccomp.Supported() {
		calls.Err = errNoSeccomp
	}
	if _, err := llsyscall.LandlockGetABIVersion(); err != nil {
		files.Err = landlockError(err)
	}
	return []Part{calls, files}
}

var errNoSeccomp = errors.New("this kernel does not have it (CONFIG_SECCOMP_FILTER)")

// landlockError explains an error of landlock_create_ruleset(2).
func landlockError(err error) error {
	switch {
	case errors.Is(err, unix.ENOSYS):
		return errors.New("this kernel does not have it (Linux 5.13, CONFIG_SECURITY_LANDLOCK)")
	case errors.Is(err, unix.EOPNOTSUPP):
		return errors.New("it is not among the security modules of this kernel (boot parameter lsm=)")
	}
	return fmt.Errorf("this kernel does not permit it: %w", err)
}

// restrictFiles permits to open files for writing only in the directories of outputs and spools and
// below. It permits to open files for reading only in the directories of spools and rotated
// outputs, and those that the lookup of an output's host needs. Connecting to other TCP ports is
// refused since Linux 6.7, and abstract sockets of others since 6.12. So are signals to other processes,
// unless there is a command: it has no rules, because it was started before.
// Descriptors that are open stay as they are.
func restrictFiles(f Features) error {
	if _, err := llsyscall.LandlockGetABIVersion(); err != nil {
		return landlockError(err)
	}
	if err := roomForSignals(); err != nil {
		return err
	}
	const rights = llsyscall.AccessFSWriteFile | llsyscall.AccessFSMakeReg | llsyscall.AccessFSTruncate
	var rules []landlock.Rule
	if len(f.Reopen) > 0 {
		rules = append(rules, landlock.PathAccess(rights, f.Reopen...))
	}
	if kept := slices.Concat(f.Rotate, f.Spool); len(kept) > 0 {
		const more = llsyscall.AccessFSReadFile | llsyscall.AccessFSReadDir | llsyscall.AccessFSRemoveFile
		rules = append(rules, landlock.PathAccess(rights|more, kept...))
	}
	if len(f.Read) > 0 {
		rules = append(rules, landlock.PathAccess(llsyscall.AccessFSReadFile|llsyscall.AccessFSReadDir, f.Read...).IgnoreIfMissing())
	}
	rules = append(rules, connectRules(f)...)
	config := landlock.V11
	if f.Command {
		config.Scoped &^= llsyscall.ScopeSignal
	}
	return config.BestEffort().Restrict(rules...)
}

// resolverFiles are what Go's resolver reads (net/conf.go, net/hosts.go in Go's library).
var resolverFiles = []string{"/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf"}

// connectRules permit what connecting the outputs needs.
func connectRules(f Features) (rules []landlock.Rule) {
	for _, path := range f.Unix {
		rules = append(rules, landlock.PathAccess(llsyscall.AccessFSResolveUnix, filepath.Dir(path)).IgnoreIfMissing())
	}
	for _, address := range f.TCP {
		host, port, err := net.SplitHostPort(address)
		number, numberErr := strconv.ParseUint(port, 10, 16)
		if err != nil || numberErr != nil {
			continue
		}
		rules = append(rules, landlock.ConnectTCP(uint16(number)))
		if net.ParseIP(host) == nil {
			const dns = 53
			rules = append(rules, landlock.ConnectTCP(dns), landlock.ConnectSendUDP(dns), landlock.ROFiles(resolverFiles...).IgnoreIfMissing())
		}
	}
	return rules
}

// restrictCalls installs the filter of system calls in all threads.
func restrictCalls(f Features) error {
	if !seccomp.Supported() {
		return errNoSeccomp
	}
	return seccomp.LoadFilter(seccomp.Filter{Flag: seccomp.FilterFlagTSync, Policy: policy(f, os.Getpid(), runtime.GOARCH)})
}
