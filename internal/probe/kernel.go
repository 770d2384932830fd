package probe

import (
	"fmt"
	"slices"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

const acceptFunction = "inet_csk_accept"

// acceptArguments returns the number of arguments of inet_csk_accept(); 0 if not known.
func acceptArguments(types *btf.Cache) int {
	spec, err := types.Kernel()
	if err != nil {
		return 0
	}
	var function *btf.Func
	if err := spec.TypeByName(acceptFunction, &function); err != nil {
		return 0
	}
	proto, ok := function.Type.(*btf.FuncProto)
	if !ok {
		return 0
	}
	return len(proto.Params)
}

// hasFunction reports whether the kernel's type information has the function.
func hasFunction(types *btf.Cache, name string) bool {
	spec, err := types.Kernel()
	if err != nil {
		return false
	}
	var function *btf.Func
	return spec.TypeByName(name, &function) == nil
}

// KernelDifferences are differences between kernels to which the programs adapt, for tests.
type KernelDifferences struct {
	AcceptArguments int  // of inet_csk_accept(); 0: not known
	TableByNetns    bool // bpf/timewait.h finds the established-hash table through the namespace
}

// DetectKernelDifferences reads the differences from the kernel's type information.
func DetectKernelDifferences() (KernelDifferences, error) {
	types := btf.NewCache()
	spec, err := types.Kernel()
	if err != nil {
		return KernelDifferences{}, fmt.Errorf("read the kernel's type information: %w", err)
	}
	var namespace *btf.Struct
	if err := spec.TypeByName("netns_ipv4", &namespace); err != nil {
		return KernelDifferences{}, fmt.Errorf("find struct netns_ipv4: %w", err)
	}
	return KernelDifferences{AcceptArguments: acceptArguments(types), TableByNetns: embedsHashinfo(namespace)}, nil
}

// embedsHashinfo reports whether tcp_death_row is embedded in netns_ipv4 and has a hashinfo.
func embedsHashinfo(namespace *btf.Struct) bool {
	for _, member := range namespace.Members {
		if member.Name != "tcp_death_row" {
			continue
		}
		row, ok := member.Type.(*btf.Struct)
		return ok && slices.ContainsFunc(row.Members, func(m btf.Member) bool { return m.Name == "hashinfo" })
	}
	return false
}

// cgroupV1Subsys returns the index, in enum cgroup_subsys_id, of a v1 controller that
// distinguishes containers, or -1 where v2 does, or where nothing is known.
// Runtimes put a container into every controller, so any common one will do.
func cgroupV1Subsys(types *btf.Cache) int32 {
	var fs unix.Statfs_t
	if unix.Statfs("/sys/fs/cgroup", &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
		return -1
	}
	spec, err := types.Kernel()
	if err != nil {
		return -1
	}
	var ids *btf.Enum
	if err := spec.TypeByName("cgroup_subsys_id", &ids); err != nil {
		return -1
	}
	for _, controller := range []string{"memory", "pids", "cpu"} {
		if unix.Statfs("/sys/fs/cgroup/"+controller, &fs) != nil || fs.Type != unix.CGROUP_SUPER_MAGIC {
			continue
		}
		for _, id := range ids.Values {
			if id.Name == controller+"_cgrp_id" {
				return int32(id.Value)
			}
		}
	}
	return -1
}
