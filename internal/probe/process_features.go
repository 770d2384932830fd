package probe

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/tcpshift/tcpshift/internal/netns"
	"github.com/tcpshift/tcpshift/internal/privilege"
)

// The names of the features that this process has, whatever the kernel: see
// [DetectProcessFeatures].
const (
	HostPIDs        = "host_pids"        // the pids in records are those that this process sees
	OtherNamespaces = "other_namespaces" // the network namespaces of other processes can be read
)

// DetectProcessFeatures finds out what this process is permitted to, and tries it.
func DetectProcessFeatures() Features {
	others := Feature{Name: OtherNamespaces, Cost: "alerts lack the limits and the sockets of other network namespaces, and snapshot does not run"}
	if !searchNetns.IsPermitted() || tryEnterNetns() != nil {
		problem, remedy := searchNetns.ExplainRefusal()
		others.Err, others.Remedy = errors.New(problem), remedy
	}
	return Features{
		{HostPIDs, privilege.CheckHostPIDs(),
			"pids in records are the host's, not those of this container; sockets that were open before, and belong to processes outside, have no owner until they operate on them",
			"run it in the host's pid namespace (docker run --pid=host, pod spec.hostPID: true)"},
		others,
	}
}

// tryEnterNetns enters the network namespace that this process is in.
func tryEnterNetns() error {
	path := fmt.Sprintf("/proc/%d/ns/net", os.Getpid())
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	own := netns.Namespace{Inode: uint32(info.Sys().(*syscall.Stat_t).Ino), Path: path}
	return own.Do(func() error { return nil })
}

// Get returns the feature with this name. It panics if f has none.
func (f Features) Get(name string) Feature {
	for _, feature := range f {
		if feature.Name == name {
			return feature
		}
	}
	panic("there is no feature " + name)
}
