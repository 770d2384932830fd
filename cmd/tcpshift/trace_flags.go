package main

import (
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/record"
)

func addTraceFlags(flags *pflag.FlagSet, o *traceOptions) {
	flags.SortFlags = false
	addFormatFlags(flags, &o.formatOptions)
	flags.Var(list(&o.only, "TYPE,...", parseRecordType), "only", "write only these record types: "+strings.Join(record.SelectableTypes(), ", ")+" (default all but process); start and stop are always written")
	addProcessFlags(flags, o)
	addOutputFlags(flags, &o.outputOptions)
	addDurationFlag(flags, o)
	flags.Var(single(&o.count, "N", parseCount), "count", "stop after this many transitions")
	o.statsInterval = 10 * time.Second
	flags.Var(single(&o.statsInterval, "D", parseDuration), "stats-interval", "time between two stats records; 0 turns them off")
	flags.Var(single(&o.summary, "D", parseWindow), "summary", "also write summary records: the connections that ended in each window of this length, by owner, role and peer, such as 1m")
	addUpdatesFlag(flags, o)
	addSizeFlags(flags, o)
	addLabelFlag(flags, &o.formatOptions)
	addExcludeSelfFlag(flags, o)
	flags.BoolVar(&o.timeWaitEnd, "time-wait-end", false, "also report when and how each TIME_WAIT ends; this hooks every timer and every free of kernel memory on the host")
	addOwnerAtReadFlag(flags, o)
	addFilterFlags(flags, &o.filter, hostNames)
	addTransitionFilterFlags(flags, &o.filter)
	addSelectionFlags(flags, &o.selection)
	addDetectionFlags(flags, &o.detection)
	addRecordingFlag(flags, o)
	addRecorderFlags(flags, &o.recorder)
	addMetricsFlags(flags, &o.metrics)
	addPageFlags(flags, &o.page)
	addSandboxFlag(flags, o)
	addConfigFlags(flags, &o.configOptions)
}

func addDurationFlag(flags *pflag.FlagSet, o *traceOptions) {
	flags.Var(single(&o.duration, "D", parseDuration), "duration", "stop after this time, such as 30s; 0 means never")
}

func addExcludeSelfFlag(flags *pflag.FlagSet, o *traceOptions) {
	flags.BoolVar(&o.excludeSelf, "exclude-self", true, "leave out the sockets of tcpshift itself")
}

func addOwnerAtReadFlag(flags *pflag.FlagSet, o *traceOptions) {
	flags.BoolVar(&o.ownerAtRead, "owner-at-read", true, "if accept() cannot be traced, find the process that accepted a connection at its first read; this hooks every read of a TCP socket on the host")
}

func addSizeFlags(flags *pflag.FlagSet, o *traceOptions) {
	o.bufferSize, o.queueSize = probe.DefaultBufferSize, defaultQueueSize
	flags.Var(single(&o.bufferSize, "SIZE", parseBufferSize), "buffer-size", "size of the ring buffer, a power of two from 64KiB to 1GiB (default 16MiB)")
	flags.Var(single(&o.queueSize, "SIZE", parseQueueSize), "queue-size", "output that may wait for a slow reader, a power of two from 256KiB to 1GiB (default 8MiB)")
}

// names has functions that parse the namespaces and cgroups that filters name.
type names struct {
	netns  func(word string) (uint32, error)
	cgroup func(word string) (uint64, error)
}

// hostNames looks up namespaces and cgroups on this host.
var hostNames = names{filter.ParseNetns, filter.ParseCgroup}

// addFilterFlags adds the filters that all commands with filters have.
func addFilterFlags(flags *pflag.FlagSet, f *filter.Filter, of names) {
	flags.Var(list(&f.Ports, "PORT,...", filter.ParsePorts), "port", "local or peer port, or a range such as 8000-8999")
	flags.Var(list(&f.LocalPorts, "PORT,...", filter.ParsePorts), "local-port", "local port or range")
	flags.Var(list(&f.PeerPorts, "PORT,...", filter.ParsePorts), "peer-port", "peer port or range")
	flags.Var(list(&f.Addrs, "CIDR,...", filter.ParseAddr), "addr", "local or peer address or CIDR")
	flags.Var(list(&f.LocalAddrs, "CIDR,...", filter.ParseAddr), "local-addr", "local address or CIDR")
	flags.Var(list(&f.PeerAddrs, "CIDR,...", filter.ParseAddr), "peer-addr", "peer address or CIDR")
	flags.Var(single(&f.Family, "4|6", filter.ParseFamily), "family", "4 or 6; IPv4 over an IPv6 socket counts as 4")
	flags.Var(list(&f.PIDs, "PID,...", filter.ParsePID), "pid", "process that owns the socket")
	flags.Var(verbatim(&f.Comms, "COMM", filter.ParseComm), "comm", "name of the process that owns the socket, at most 15 bytes; may be repeated")
	flags.Var(list(&f.UIDs, "USER,...", filter.ParseUser), "uid", "user that the socket belongs to: a number or a name")
	flags.Var(list(&f.Netns, "NETNS,...", of.netns), "netns", "network namespace: inode, path, pid:N or a name of 'ip netns'")
	flags.Var(list(&f.Cgroups, "PATH,...", of.cgroup), "cgroup", "cgroup v2 path; includes the cgroups below it")
	addExclusionFlags(flags, &f.Not, of)
}

// addExclusionFlags adds a flag for each filter that leaves out what the filter passes.
func addExclusionFlags(flags *pflag.FlagSet, not *filter.Exclusions, of names) {
	flags.Var(list(&not.Ports, "PORT,...", filter.ParsePorts), "not-port", "leave out this local or peer port or range")
	flags.Var(list(&not.LocalPorts, "PORT,...", filter.ParsePorts), "not-local-port", "leave out this local port or range")
	flags.Var(list(&not.PeerPorts, "PORT,...", filter.ParsePorts), "not-peer-port", "leave out this peer port or range")
	flags.Var(list(&not.Addrs, "CIDR,...", filter.ParseAddr), "not-addr", "leave out this local or peer address or CIDR")
	flags.Var(list(&not.LocalAddrs, "CIDR,...", filter.ParseAddr), "not-local-addr", "leave out this local address or CIDR")
	flags.Var(list(&not.PeerAddrs, "CIDR,...", filter.ParseAddr), "not-peer-addr", "leave out this peer address or CIDR")
	flags.Var(list(&not.PIDs, "PID,...", filter.ParsePID), "not-pid", "leave out the sockets of this process")
	flags.Var(verbatim(&not.Comms, "COMM", filter.ParseComm), "not-comm", "leave out the sockets of processes with this name; may be repeated")
	flags.Var(list(&not.UIDs, "USER,...", filter.ParseUser), "not-uid", "leave out the sockets of this user")
	flags.Var(list(&not.Netns, "NETNS,...", of.netns), "not-netns", "leave out this network namespace")
	flags.Var(list(&not.Cgroups, "PATH,...", of.cgroup), "not-cgroup", "leave out this cgroup and those below it")
}

// addTransitionFilterFlags adds the filters on states and roles, for the commands that write transitions.
func addTransitionFilterFlags(flags *pflag.FlagSet, f *filter.Filter) {
	flags.Var(list(&f.OldStates, "STATE,...", filter.ParseState), "old-state", "state that the socket leaves, such as SYN_SENT")
	flags.Var(list(&f.NewStates, "STATE,...", filter.ParseState), "new-state", "state that the socket enters")
	flags.Var(list(&f.Roles, "ROLE,...", filter.ParseRole), "role", "client, server or listener")
}
