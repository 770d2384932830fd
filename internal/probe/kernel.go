package probe

import (
	"fmt"
	"slices"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

const acceptFunction = "inet_csk_accept"

// acceptArguments is how many arguments inet_csk_accept() has in this kernel.
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

// hasFunction says whether the kernel's type information has it.
func hasFunction(types *btf.Cache, name string) bool {
	spec, err := types.Kernel()
	if err != nil {
		return false
	}
	var function *btf.Func
	return spec.TypeByName(name, &function) == nil
}

// Layout is how this kernel differs where the programs adapt themselves to it.
type Layout struct {
	AcceptArguments int  // of inet_csk_accept(); 0: not known
	TableByNetns    bool // bpf/timewait.h finds the table of connections from the namespace
}

// KernelLayout reads it from the kernel's type information.
func KernelLayout() (Layout, error) {
	types := btf.NewCache()
	spec, err := types.Kernel()
	if err != nil {
		return Layout{}, fmt.Errorf("read the kernel's type information: %w", err)
	}
	var namespace *btf.Struct
	if err := spec.TypeByName("netns_ipv4", &namespace); err != nil {
		return Layout{}, fmt.Errorf("find struct netns_ipv4: %w", err)
	}
	return Layout{AcceptArguments: acceptArguments(types), TableByNetns: hasTable(namespace)}, nil
}

// hasTable tells whether tcp_death_row is embedded and has a hashinfo.
func hasTable(namespace *btf.Struct) bool {
	for _, member := range namespace.Members {
		if member.Name != "tcp_death_row" {
			continue
		}
		row, ok := member.Type.(*btf.Struct)
		return ok && slices.ContainsFunc(row.Members, func(m btf.Member) bool { return m.Name == "hashinfo" })
	}
	return false
}

// cgroupV1Subsys is the index, in enum cgroup_subsys_id, of a v1 controller that
// tells containers apart; -1 where cgroup v2 does, being mounted for all. Runtimes
// put a container into every controller, so any of the usual ones will do.
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
