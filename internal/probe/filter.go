package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/tcpshift/tcpshift/internal/bpfobj"
	"github.com/tcpshift/tcpshift/internal/filter"
)

// addFilterConstants adds the constants of bpf/config.h that switch the filters on.
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
	constants[bpfobj.ProbeVarWantedStates] = [32]uint32(f.WantedTransitions())
	constants[bpfobj.ProbeVarExcludeOrphanFinWait2] = f.ExcludeOrphanFinWait2
	constants[bpfobj.ProbeVarFilterRoles] = roles
	constants[bpfobj.ProbeVarFilterPorts] = portSides
	constants[bpfobj.ProbeVarFilterAddrs] = addrSides
	constants[bpfobj.ProbeVarFilterNetns] = len(f.Netns) > 0
	constants[bpfobj.ProbeVarFilterPid] = len(f.PIDs) > 0
	constants[bpfobj.ProbeVarFilterComm] = len(f.Comms) > 0
	constants[bpfobj.ProbeVarFilterCgroup] = len(f.Cgroups) > 0
	constants[bpfobj.ProbeVarFilterUid] = len(f.UIDs) > 0
	constants[bpfobj.ProbeVarFollowChildren] = f.Children
	constants[bpfobj.ProbeVarExcludeNetns] = len(f.Not.Netns) > 0
	constants[bpfobj.ProbeVarExcludePid] = len(f.Not.PIDs) > 0
	constants[bpfobj.ProbeVarExcludeComm] = len(f.Not.Comms) > 0
	constants[bpfobj.ProbeVarExcludeCgroup] = len(f.Not.Cgroups) > 0
	constants[bpfobj.ProbeVarExcludeUid] = len(f.Not.UIDs) > 0
}

func portSets(f *filter.Filter) [bpfobj.ProbeSideSIDES][]filter.PortRange {
	return [bpfobj.ProbeSideSIDES][]filter.PortRange{
		bpfobj.ProbeSideSIDE_EITHER:     f.Ports,
		bpfobj.ProbeSideSIDE_LOCAL:      f.LocalPorts,
		bpfobj.ProbeSideSIDE_PEER:       f.PeerPorts,
		bpfobj.ProbeSideEXCLUDED_EITHER: f.Not.Ports,
		bpfobj.ProbeSideEXCLUDED_LOCAL:  f.Not.LocalPorts,
		bpfobj.ProbeSideEXCLUDED_PEER:   f.Not.PeerPorts,
	}
}

func prefixSets(f *filter.Filter) [bpfobj.ProbeSideSIDES][]netip.Prefix {
	return [bpfobj.ProbeSideSIDES][]netip.Prefix{
		bpfobj.ProbeSideSIDE_EITHER:     f.Addrs,
		bpfobj.ProbeSideSIDE_LOCAL:      f.LocalAddrs,
		bpfobj.ProbeSideSIDE_PEER:       f.PeerAddrs,
		bpfobj.ProbeSideEXCLUDED_EITHER: f.Not.Addrs,
		bpfobj.ProbeSideEXCLUDED_LOCAL:  f.Not.LocalAddrs,
		bpfobj.ProbeSideEXCLUDED_PEER:   f.Not.PeerAddrs,
	}
}

// prefixes returns the keys of the map filter_prefixes.
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

// members returns the keys of the map filter_members.
func members(f *filter.Filter) (keys []bpfobj.ProbeMemberKey) {
	keys = appendIDs(keys, bpfobj.ProbeMemberKindMEMBER_NETNS, f.Netns)
	keys = appendIDs(keys, bpfobj.ProbeMemberKindMEMBER_PID, f.PIDs)
	keys = appendComms(keys, bpfobj.ProbeMemberKindMEMBER_COMM, f.Comms)
	keys = appendIDs(keys, bpfobj.ProbeMemberKindMEMBER_CGROUP, f.Cgroups)
	keys = appendIDs(keys, bpfobj.ProbeMemberKindMEMBER_UID, f.UIDs)
	keys = appendIDs(keys, bpfobj.ProbeMemberKindEXCLUDED_NETNS, f.Not.Netns)
	keys = appendIDs(keys, bpfobj.ProbeMemberKindEXCLUDED_PID, f.Not.PIDs)
	keys = appendComms(keys, bpfobj.ProbeMemberKindEXCLUDED_COMM, f.Not.Comms)
	keys = appendIDs(keys, bpfobj.ProbeMemberKindEXCLUDED_CGROUP, f.Not.Cgroups)
	return appendIDs(keys, bpfobj.ProbeMemberKindEXCLUDED_UID, f.Not.UIDs)
}

func appendIDs[T uint32 | uint64](keys []bpfobj.ProbeMemberKey, kind bpfobj.ProbeMemberKind, ids []T) []bpfobj.ProbeMemberKey {
	for _, id := range ids {
		key := bpfobj.ProbeMemberKey{Kind: uint32(kind)}
		binary.NativeEndian.PutUint64(key.Value[:], uint64(id))
		keys = append(keys, key)
	}
	return keys
}

func appendComms(keys []bpfobj.ProbeMemberKey, kind bpfobj.ProbeMemberKind, comms []string) []bpfobj.ProbeMemberKey {
	for _, comm := range comms {
		key := bpfobj.ProbeMemberKey{Kind: uint32(kind)}
		copy(key.Value[:], comm)
		keys = append(keys, key)
	}
	return keys
}

// fillFilterMaps fills the maps of bpf/filter.h. It must run before the programs are
// attached.
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
