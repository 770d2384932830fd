package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	ebpffeatures "github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/bpfobj"
	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// configure sets the constants of bpf/config.h and the sizes of the maps.
func configure(opts Options, features Features, programs []string, kernel *Kernel) (*ebpf.CollectionSpec, error) {
	decoded, err := kernel.programs()
	if err != nil {
		return nil, fmt.Errorf("read embedded programs: %w", err)
	}
	l, err := layoutOf(opts.BufferSize)
	if err != nil {
		return nil, err
	}
	spec, types := decoded.Copy(), kernel.types
	plainReads := hasFunction(types, "bpf_rdonly_cast") // since 6.2
	clientTable := plainReads && features.has(SocketStorage) && features.has(SocketCookie)
	constants := map[string]any{
		bpfobj.ProbeVarHasSocketStorage: features.has(SocketStorage),
		bpfobj.ProbeVarHasSocketCookie:  features.has(SocketCookie),
		bpfobj.ProbeVarRingsPerCpu:      l.perCPU,
		bpfobj.ProbeVarRingMask:         uint32(l.count - 1),
		bpfobj.ProbeVarWakeupBytes:      uint64(l.each / 4),
		bpfobj.ProbeVarWantEnds:         opts.Ends,
		bpfobj.ProbeVarWantCgroups:      true,
		bpfobj.ProbeVarWantTimewaitEnds: opts.TimeWaitEnds && features.has(TimeWaitEnds),
		bpfobj.ProbeVarCgroupV1Subsys:   cgroupV1Subsys(types),
		bpfobj.ProbeVarHasTaskFromPid:   hasFunction(types, "bpf_task_from_pid"),
		bpfobj.ProbeVarHasRdonlyCast:    plainReads,
		bpfobj.ProbeVarHasClientTable:   clientTable,
		bpfobj.ProbeVarMayBePreempted:   mayBePreempted(),
		// Not since 6.1, which nothing tells from 6.0: there it only costs.
		bpfobj.ProbeVarMayInterruptItself: !plainReads,
		bpfobj.ProbeVarAcceptHasTwoArgs:   acceptArguments(types) == 2,
	}
	addFilterConstants(constants, &opts.Filter)
	if opts.ExcludeSelf {
		if err := addSelf(constants); err != nil {
			return nil, err
		}
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
		spec.Maps[bpfobj.ProbeMapTrackedTimewaits].MaxEntries = timeWaitsWatched
		programs = append(slices.Clone(programs), timeWaitEndPrograms...)
	}
	leaveOut(spec, features, programs)
	for _, program := range spec.Programs {
		dropMissingCalls(program.Instructions, func(name string) bool { return hasFunction(types, name) })
		if !clientTable {
			dropAtomics(program.Instructions)
		}
	}
	return spec, nil
}

// mayBePreempted says whether a task may be preempted between two programs of a
// tracepoint: so on 7.1, not yet on 6.18, and nothing but the version tells. To say so
// of a kernel where it is not costs time, and nothing else.
func mayBePreempted() bool {
	const since = 6<<16 | 19<<8
	version, err := ebpffeatures.LinuxVersionCode()
	return err != nil || version >= since
}

// dropMissingCalls takes out the calls of functions that this kernel does not have,
// all of them behind a constant that says so. The library would look for each of them
// in every module and through all that anybody has loaded.
func dropMissingCalls(instructions asm.Instructions, has func(name string) bool) {
	for i := range instructions {
		call := &instructions[i]
		if call.IsKfuncCall() && !has(call.Reference()) {
			*call = asm.Mov.Imm(asm.R0, 0).WithSource(call.Source())
		}
	}
}

// dropAtomics takes out what kernels before 5.12 refuse although it is never reached, and
// the JIT of arm64 before 5.18: the exchanges of clients.h.
func dropAtomics(instructions asm.Instructions) {
	for i := range instructions {
		atomic := &instructions[i]
		switch atomic.OpCode.AtomicOp() {
		case asm.Xchg, asm.CmpXchg:
			*atomic = asm.Mov.Imm(asm.R0, 0).WithSource(atomic.Source())
		}
	}
}

// timeWaitsWatched is how many TIME_WAITs can be followed to their ends at a time, in
// about 25 MiB: half as many as the kernel keeps in a namespace by default.
const timeWaitsWatched = 128 << 10

// What is loaded for the one purpose and for the other.
var (
	tracePrograms = []string{
		bpfobj.ProbeProgSetStatePrimary, bpfobj.ProbeProgSetStateBackup,
		bpfobj.ProbeProgAccepted, bpfobj.ProbeProgScanFiles, bpfobj.ProbeProgAdoptSubflows,
	}
	timeWaitEndPrograms = []string{
		bpfobj.ProbeProgTimerExpiredPrimary, bpfobj.ProbeProgTimerExpiredBackup,
		bpfobj.ProbeProgObjectFreedPrimary, bpfobj.ProbeProgObjectFreedBackup,
	}
	snapshotPrograms = []string{
		bpfobj.ProbeProgScanFiles, bpfobj.ProbeProgAdoptSubflows, bpfobj.ProbeProgDumpSockets,
	}
)

// leaveOut drops the other programs, and those that this kernel would refuse.
func leaveOut(spec *ebpf.CollectionSpec, features Features, programs []string) {
	needs := map[string]string{
		bpfobj.ProbeProgScanFiles:     SocketScan,
		bpfobj.ProbeProgAdoptSubflows: SocketScan,
		bpfobj.ProbeProgAccepted:      AcceptHook,
	}
	for _, name := range timeWaitEndPrograms {
		needs[name] = TimeWaitEnds
	}
	for name := range spec.Programs {
		feature := needs[name]
		if !slices.Contains(programs, name) || feature != "" && !features.has(feature) {
			delete(spec.Programs, name)
		}
	}
	if !features.has(SocketStorage) {
		// No program that is left uses it, but each names it.
		standIn := spec.Maps[bpfobj.ProbeMapSockStates]
		standIn.Type, standIn.Flags, standIn.MaxEntries = ebpf.Array, 0, 1
	}
}

func addFilterConstants(constants map[string]any, f *filter.Filter) {
	var roles, portSides, addrSides uint8
	for _, r := range f.Roles {
		roles |= 1 << r
	}
	for side, set := range portSets(f) {
		if len(set) > 0 {
			portSides |= 1 << side
		}
	}
	for side, set := range prefixSets(f) {
		if len(set) > 0 {
			addrSides |= 1 << side
		}
	}
	constants[bpfobj.ProbeVarFilterFamily] = f.Family
	constants[bpfobj.ProbeVarFilterStates] = len(f.OldStates)+len(f.NewStates) > 0 || f.Transitions != nil
	constants[bpfobj.ProbeVarWantedStates] = wantedStates(f)
	constants[bpfobj.ProbeVarFilterRoles] = roles
	constants[bpfobj.ProbeVarFilterPorts] = portSides
	constants[bpfobj.ProbeVarFilterAddrs] = addrSides
	constants[bpfobj.ProbeVarFilterNetns] = len(f.Netns) > 0
	constants[bpfobj.ProbeVarFilterPid] = len(f.PIDs) > 0
	constants[bpfobj.ProbeVarFilterComm] = len(f.Comms) > 0
	constants[bpfobj.ProbeVarFilterCgroup] = len(f.Cgroups) > 0
}

// wantedStates are those that all filters on states let through.
func wantedStates(f *filter.Filter) [32]uint32 {
	wanted := [32]uint32(tcp.AllTransitions())
	if f.Transitions != nil {
		wanted = [32]uint32(*f.Transitions)
	}
	if len(f.NewStates) > 0 {
		for old := range wanted {
			wanted[old] &= bits(f.NewStates)
		}
	}
	if len(f.OldStates) > 0 {
		for old := range wanted {
			if bits(f.OldStates)>>old&1 == 0 {
				wanted[old] = 0
			}
		}
	}
	return wanted
}

func bits(states []tcp.State) (set uint32) {
	for _, s := range states {
		set |= 1 << s
	}
	return set
}

// addSelf names this process as bpf_get_ns_current_pid_tgid() sees it.
func addSelf(constants map[string]any) error {
	info, err := os.Stat("/proc/self/ns/pid")
	if err != nil {
		return fmt.Errorf("find own pid namespace: %w", err)
	}
	st := info.Sys().(*syscall.Stat_t)
	const initialPidns = 0xEFFFFFFC // PROC_PID_INIT_INO, include/linux/proc_ns.h
	constants[bpfobj.ProbeVarExcludeSelf] = true
	constants[bpfobj.ProbeVarSelfInInitialPidns] = st.Ino == initialPidns
	constants[bpfobj.ProbeVarSelfPid] = uint32(os.Getpid())
	// The kernel's own encoding, MKDEV of include/linux/kdev_t.h.
	constants[bpfobj.ProbeVarSelfPidnsDev] = uint64(unix.Major(st.Dev))<<20 | uint64(unix.Minor(st.Dev))
	constants[bpfobj.ProbeVarSelfPidnsIno] = st.Ino
	return nil
}

func portSets(f *filter.Filter) [bpfobj.ProbeSideSIDES][]filter.PortRange {
	return [bpfobj.ProbeSideSIDES][]filter.PortRange{
		bpfobj.ProbeSideSIDE_EITHER: f.Ports,
		bpfobj.ProbeSideSIDE_LOCAL:  f.LocalPorts,
		bpfobj.ProbeSideSIDE_PEER:   f.PeerPorts,
	}
}

func prefixSets(f *filter.Filter) [bpfobj.ProbeSideSIDES][]netip.Prefix {
	return [bpfobj.ProbeSideSIDES][]netip.Prefix{
		bpfobj.ProbeSideSIDE_EITHER: f.Addrs,
		bpfobj.ProbeSideSIDE_LOCAL:  f.LocalAddrs,
		bpfobj.ProbeSideSIDE_PEER:   f.PeerAddrs,
	}
}

func prefixes(f *filter.Filter) []bpfobj.ProbePrefixKey {
	var keys []bpfobj.ProbePrefixKey
	for side, set := range prefixSets(f) {
		for _, prefix := range set {
			keys = append(keys, prefixKey(side, prefix))
		}
	}
	return keys
}

func prefixKey(side int, prefix netip.Prefix) bpfobj.ProbePrefixKey {
	const kindBits = 32 // PREFIX_KIND_BITS, bpf/filter.h
	key := bpfobj.ProbePrefixKey{Prefixlen: kindBits + uint32(prefix.Bits()), Side: uint8(side), Family: 6}
	if prefix.Addr().Is4() {
		key.Family = 4
	}
	for i, word := 0, prefix.Addr().AsSlice(); len(word) > 0; i, word = i+1, word[4:] {
		key.Addr[i] = binary.NativeEndian.Uint32(word)
	}
	return key
}

func members(f *filter.Filter) []bpfobj.ProbeMemberKey {
	var keys []bpfobj.ProbeMemberKey
	add := func(kind bpfobj.ProbeMemberKind, value []byte) {
		key := bpfobj.ProbeMemberKey{Kind: uint32(kind)}
		copy(key.Value[:], value)
		keys = append(keys, key)
	}
	id := func(v uint64) []byte { return binary.NativeEndian.AppendUint64(nil, v) }
	for _, ino := range f.Netns {
		add(bpfobj.ProbeMemberKindMEMBER_NETNS, id(uint64(ino)))
	}
	for _, pid := range f.PIDs {
		add(bpfobj.ProbeMemberKindMEMBER_PID, id(uint64(pid)))
	}
	for _, comm := range f.Comms {
		add(bpfobj.ProbeMemberKindMEMBER_COMM, []byte(comm))
	}
	for _, cgroup := range f.Cgroups {
		add(bpfobj.ProbeMemberKindMEMBER_CGROUP, id(cgroup))
	}
	return keys
}

// fillFilterMaps runs before the programs are attached.
func fillFilterMaps(maps map[string]*ebpf.Map, f *filter.Filter) error {
	var errs []error
	for side, ranges := range portSets(f) {
		var set bpfobj.ProbePortSet
		for _, r := range ranges {
			for port := int(r.First); port <= int(r.Last); port++ {
				set.Bits[port/64] |= 1 << (port % 64)
			}
		}
		errs = append(errs, maps[bpfobj.ProbeMapFilterPortSets].Put(uint32(side), &set))
	}
	for _, key := range prefixes(f) {
		errs = append(errs, maps[bpfobj.ProbeMapFilterPrefixes].Put(&key, uint8(1)))
	}
	for _, key := range members(f) {
		errs = append(errs, maps[bpfobj.ProbeMapFilterMembers].Put(&key, uint8(1)))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("fill filter maps: %w", err)
	}
	return nil
}
