package probe

import (
	"fmt"
	"os"
	"slices"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	ebpffeatures "github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/bpfobj"
)

// configure returns the collection to load: of the named programs, those that this kernel
// supports. It sets the constants of bpf/config.h and the sizes of the maps.
func configure(opts Options, features Features, programs []string, kernel *Kernel) (*ebpf.CollectionSpec, error) {
	decoded, err := kernel.programs()
	if err != nil {
		return nil, fmt.Errorf("read embedded programs: %w", err)
	}
	l, err := ringLayoutOf(opts.BufferSize)
	if err != nil {
		return nil, err
	}
	spec, types := decoded.Copy(), kernel.types
	rdonlyCast := hasFunction(types, "bpf_rdonly_cast") // since 6.2
	preempted := mayBePreempted(opts.MayBePreempted)
	chain := chainLength(preempted)
	clientTable := rdonlyCast && features.has(SocketStorage) && features.has(SocketCookie)
	constants := map[string]any{
		bpfobj.ProbeVarHasSocketStorage: features.has(SocketStorage),
		bpfobj.ProbeVarHasSocketCookie:  features.has(SocketCookie),
		bpfobj.ProbeVarJiffyNs:          jiffy(),
		bpfobj.ProbeVarRingsPerCpuQ32:   l.perCPU,
		bpfobj.ProbeVarRingMask:         uint32(l.count - 1),
		bpfobj.ProbeVarWakeupBytes:      uint64(l.bytes / 4),
		bpfobj.ProbeVarWantEnds:         opts.Ends,
		bpfobj.ProbeVarSampleN:          opts.Sample,
		bpfobj.ProbeVarWantStateTimes:   opts.Filter.Transitions == nil || opts.StateTimes, // else no output writes the time in a state
		bpfobj.ProbeVarWantCgroups:      true,
		bpfobj.ProbeVarWantTimewaitEnds: opts.TimeWaitEnds && features.has(TimeWaitEnds),
		bpfobj.ProbeVarCgroupV1Subsys:   cgroupV1Subsys(types),
		bpfobj.ProbeVarHasTaskFromPid:   hasFunction(types, "bpf_task_from_pid"),
		bpfobj.ProbeVarHasRdonlyCast:    rdonlyCast,
		bpfobj.ProbeVarHasClientTable:   clientTable,
		bpfobj.ProbeVarMayBePreempted:   preempted,
		bpfobj.ProbeVarChainLength:      chain,
		// True up to 6.0. Nothing distinguishes 6.1 from 6.0; on 6.1 it only costs time.
		bpfobj.ProbeVarMayInterruptItself: !rdonlyCast,
		bpfobj.ProbeVarAcceptHasTwoArgs:   acceptArguments(types) == 2,
		bpfobj.ProbeVarHasReceiveReset:    features.has(ResetReceived),
		bpfobj.ProbeVarHasSendReset:       features.has(ResetSent),
		bpfobj.ProbeVarSendResetHasReason: sendResetHasReason(types),
		bpfobj.ProbeVarUpdateMinAgeNs:     uint64(opts.UpdatesFrom),
	}
	addFilterConstants(constants, &opts.Filter)
	if err := addSelf(constants, opts); err != nil {
		return nil, err
	}
	for name, value := range constants {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, fmt.Errorf("set %s: %w", name, err)
		}
	}
	l.apply(spec)
	spec.Maps[bpfobj.ProbeMapFilterPrefixes].MaxEntries = uint32(max(1, len(prefixes(&opts.Filter))))
	spec.Maps[bpfobj.ProbeMapFilterMembers].MaxEntries = uint32(max(1, len(members(&opts.Filter))))
	if opts.TimeWaitEnds {
		spec.Maps[bpfobj.ProbeMapTrackedTimewaits].MaxEntries = maxTrackedTimeWaits
	}
	spec.Maps[bpfobj.ProbeMapSocketGroups].MaxEntries = roomForSocketGroups(opts)
	if opts.Filter.Children {
		programs = slices.Concat(programs, sizeFollowed(spec))
	}
	shortenChains(spec, chain)
	selectPrograms(spec, features, slices.Concat(programs, optionalPrograms(opts, types)))
	dropUnsupported(spec, types, clientTable)
	return spec, nil
}

// jiffy is the length of a jiffy in nanoseconds: the resolution of the kernel's coarse clocks. It is 0 if the kernel does
// not tell.
func jiffy() uint64 {
	var resolution unix.Timespec
	if unix.ClockGetres(unix.CLOCK_MONOTONIC_COARSE, &resolution) != nil {
		return 0
	}
	return uint64(resolution.Nano())
}

// optionalPrograms are those that a trace loads only if opts ask for them.
func optionalPrograms(opts Options, types *btf.Cache) (names []string) {
	if opts.TimeWaitEnds {
		names = append(names, timeWaitEndPrograms...)
	}
	if opts.Reloadable {
		names = append(names, slices.Concat(transitionEntries[:], resetSentEntries[:])...)
	}
	if opts.BoundPorts && hasFunction(types, "bpf_iter_tcp") { // since 5.9
		names = append(names, bpfobj.ProbeProgDumpBoundPorts)
	}
	if opts.UpdatesFrom > 0 {
		names = append(names, bpfobj.ProbeProgUpdateSockets)
	}
	if opts.CountSockets && hasFunction(types, "bpf_iter_tcp") {
		names = append(names, bpfobj.ProbeProgCountSockets)
	}
	return names
}

// mayBePreempted reports whether a task may be preempted in a program, and between two
// programs of a tracepoint; forced, if not nil, decides.
func mayBePreempted(forced *bool) bool {
	if forced != nil {
		return *forced
	}
	return preemptsPrograms(ebpffeatures.LinuxVersionCode())
}

// preemptsPrograms reports whether a kernel of this version preempts programs. It does
// since 7.0 (commit a46023d5616e, include/linux/tracepoint.h), and only the version shows
// it. A wrong true costs time and nothing else, so an unknown version counts as true.
func preemptsPrograms(version uint32, err error) bool {
	const since = 7 << 16
	return err != nil || version >= since
}

// chainLength is the number of programs for each tracepoint, see bpf/dedup.h.
func chainLength(preempted bool) uint32 {
	if preempted {
		return 3
	}
	return 2
}

// shortenChains drops the programs beyond the given length of each chain, and their share
// of the maps.
func shortenChains(spec *ebpf.CollectionSpec, length uint32) {
	for _, chain := range chains {
		for _, name := range chain[length:] {
			delete(spec.Programs, name)
		}
	}
	for _, name := range []string{bpfobj.ProbeMapCounters, bpfobj.ProbeMapEventCtxScratch} {
		m := spec.Maps[name]
		perProgram := m.MaxEntries / uint32(bpfobj.ProbeProgramRankPROGRAMS)
		m.MaxEntries -= perProgram * (uint32(bpfobj.ProbeProgramRankPROGRAMS) - length)
	}
}

// dropUnsupported removes the instructions that need a newer kernel; no program reaches them.
func dropUnsupported(spec *ebpf.CollectionSpec, types *btf.Cache, clientTable bool) {
	for _, program := range spec.Programs {
		dropMissingCalls(program.Instructions, func(name string) bool { return hasFunction(types, name) })
		if !clientTable {
			dropAtomics(program.Instructions)
		}
	}
}

// dropMissingCalls removes the calls of kfuncs that this kernel does not have. A constant
// keeps the programs from reaching them. Otherwise the ebpf library would search for each
// kfunc in the types of every module and of everything else that is loaded.
func dropMissingCalls(instructions asm.Instructions, has func(name string) bool) {
	for i := range instructions {
		call := &instructions[i]
		if call.IsKfuncCall() && !has(call.Reference()) {
			*call = asm.Mov.Imm(asm.R0, 0).WithSource(call.Source())
		}
	}
}

// dropAtomics removes the atomic exchanges of bpf/client_table.h. Kernels before 5.12, and
// the JIT of arm64 before 5.18, refuse them even where they are never reached.
func dropAtomics(instructions asm.Instructions) {
	for i := range instructions {
		atomic := &instructions[i]
		switch atomic.OpCode.AtomicOp() {
		case asm.Xchg, asm.CmpXchg:
			*atomic = asm.Mov.Imm(asm.R0, 0).WithSource(atomic.Source())
		}
	}
}

// maxTrackedTimeWaits bounds the TIME_WAITs whose end is awaited at one time. They take
// about 25 MiB. The kernel allows at most twice as many in a namespace by default.
const maxTrackedTimeWaits = 128 << 10

// chain has the programs of one tracepoint, by enum program_rank of bpf/event.h. That is
// the order in which the kernel calls them, see bpf/dedup.h.
type chain [bpfobj.ProbeProgramRankPROGRAMS]string

var (
	transitionChain = chain{
		bpfobj.ProbeProgSetStatePrimary, bpfobj.ProbeProgSetStateBackup, bpfobj.ProbeProgSetStateSecondBackup,
	}
	timerExpiredChain = chain{
		bpfobj.ProbeProgTimerExpiredPrimary, bpfobj.ProbeProgTimerExpiredBackup, bpfobj.ProbeProgTimerExpiredSecondBackup,
	}
	objectFreedChain = chain{
		bpfobj.ProbeProgObjectFreedPrimary, bpfobj.ProbeProgObjectFreedBackup, bpfobj.ProbeProgObjectFreedSecondBackup,
	}
	resetReceivedChain = chain{
		bpfobj.ProbeProgResetReceivedPrimary, bpfobj.ProbeProgResetReceivedBackup, bpfobj.ProbeProgResetReceivedSecondBackup,
	}
	resetSentChain = chain{
		bpfobj.ProbeProgResetSentPrimary, bpfobj.ProbeProgResetSentBackup, bpfobj.ProbeProgResetSentSecondBackup,
	}
	// The entries of bpf/entry.h, which are attached in place of the programs of a chain where Options.Reloadable
	// is set.
	transitionEntries = chain{
		bpfobj.ProbeProgSetStateEntryPrimary, bpfobj.ProbeProgSetStateEntryBackup, bpfobj.ProbeProgSetStateEntrySecondBackup,
	}
	resetSentEntries = chain{
		bpfobj.ProbeProgResetSentEntryPrimary, bpfobj.ProbeProgResetSentEntryBackup, bpfobj.ProbeProgResetSentEntrySecondBackup,
	}
	chains = []chain{
		transitionChain, timerExpiredChain, objectFreedChain, resetReceivedChain, resetSentChain, transitionEntries, resetSentEntries,
	}
)

// rankOf is the enum program_rank of a program. A program outside the chains has the rank of a primary program.
func rankOf(program string) int {
	for _, c := range chains {
		if rank := slices.Index(c[:], program); rank > 0 {
			return rank
		}
	}
	return int(bpfobj.ProbeProgramRankPROGRAM_PRIMARY)
}

// The programs that a trace, a trace of the ends of TIME_WAITs, and a snapshot load. The
// order is that of attachment, see [Probe.attach].
var (
	tracePrograms = slices.Concat(transitionChain[:], []string{
		bpfobj.ProbeProgAcceptEntered, bpfobj.ProbeProgAccepted, bpfobj.ProbeProgReadBy,
		bpfobj.ProbeProgScanFiles, bpfobj.ProbeProgScanSubflows, bpfobj.ProbeProgListenPort,
	}, resetReceivedChain[:], resetSentChain[:])
	timeWaitEndPrograms = slices.Concat(timerExpiredChain[:], objectFreedChain[:])
	// unattachedPrograms are run by this package: iterators, and listen_port.
	unattachedPrograms = []string{
		bpfobj.ProbeProgScanFiles, bpfobj.ProbeProgScanSubflows, bpfobj.ProbeProgListenPort,
		bpfobj.ProbeProgDumpBoundPorts, bpfobj.ProbeProgUpdateSockets, bpfobj.ProbeProgCountSockets,
	}
	snapshotPrograms = []string{
		bpfobj.ProbeProgScanFiles, bpfobj.ProbeProgScanSubflows, bpfobj.ProbeProgDumpSockets,
	}
)

// selectPrograms keeps those of the programs that this kernel supports, and drops all others.
func selectPrograms(spec *ebpf.CollectionSpec, features Features, programs []string) {
	needs := map[string]string{
		bpfobj.ProbeProgScanFiles:     SocketScan,
		bpfobj.ProbeProgScanSubflows:  SocketScan,
		bpfobj.ProbeProgAcceptEntered: AcceptHook,
		bpfobj.ProbeProgAccepted:      AcceptHook,
		bpfobj.ProbeProgReadBy:        ReadHook,
		bpfobj.ProbeProgUpdateSockets: LiveUpdates,
	}
	for _, several := range []struct {
		feature  string
		programs []string
	}{
		{TimeWaitEnds, timeWaitEndPrograms}, {ResetReceived, resetReceivedChain[:]}, {ResetSent, resetSentChain[:]},
		{ResetSent, resetSentEntries[:]},
	} {
		for _, name := range several.programs {
			needs[name] = several.feature
		}
	}
	if features.has(AcceptHook) {
		delete(spec.Programs, bpfobj.ProbeProgReadBy) // accept() is earlier than any read
	}
	for name := range spec.Programs {
		feature := needs[name]
		if !slices.Contains(programs, name) || feature != "" && !features.has(feature) {
			delete(spec.Programs, name)
		}
	}
	if !features.has(SocketStorage) {
		// No remaining program uses the map, but each refers to it.
		standIn := spec.Maps[bpfobj.ProbeMapSockStates]
		standIn.Type, standIn.Flags, standIn.MaxEntries = ebpf.Array, 0, 1
	}
}

// addSelf adds what identifies this process: its pid, and the device and inode of its pid
// namespace, by which bpf_get_ns_current_pid_tgid() finds that pid. It adds nothing if nothing depends on them.
func addSelf(constants map[string]any, opts Options) error {
	constants[bpfobj.ProbeVarExcludeSelf] = opts.ExcludeSelf
	if !opts.ExcludeSelf && !opts.Filter.Children {
		return nil
	}
	info, err := os.Stat("/proc/self/ns/pid")
	if err != nil {
		return fmt.Errorf("find own pid namespace: %w", err)
	}
	st := info.Sys().(*syscall.Stat_t)
	const initialPidns = 0xEFFFFFFC // PROC_PID_INIT_INO, include/linux/proc_ns.h
	constants[bpfobj.ProbeVarSelfInInitialPidns] = st.Ino == initialPidns
	constants[bpfobj.ProbeVarSelfPid] = uint32(os.Getpid())
	// The kernel's own encoding, MKDEV of include/linux/kdev_t.h.
	constants[bpfobj.ProbeVarSelfPidnsDev] = uint64(unix.Major(st.Dev))<<20 | uint64(unix.Minor(st.Dev))
	constants[bpfobj.ProbeVarSelfPidnsIno] = st.Ino
	return nil
}
