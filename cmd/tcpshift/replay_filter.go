package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spf13/pflag"

	"github.com/tcpshift/tcpshift/internal/filter"
)

// addReplayFilterFlags adds the filters of trace. No recording has what --cgroup and --not-cgroup need: they fail.
func addReplayFilterFlags(flags *pflag.FlagSet, f *filter.Filter) {
	addFilterFlags(flags, f, names{recordedNetns, recordedCgroup})
	addTransitionFilterFlags(flags, f)
	flags.Lookup("netns").Usage = "network namespace: the inode number that the records have"
	for _, name := range []string{"cgroup", "not-cgroup"} {
		flags.Lookup(name).Usage = "an error: a recording does not have the cgroup in which a socket was created"
	}
}

// recordedNetns parses the inode number of a namespace of the host where the recording was made.
func recordedNetns(word string) (uint32, error) {
	inode, err := strconv.ParseUint(word, 10, 32)
	if err != nil || inode == 0 {
		return 0, fmt.Errorf("%q is not an inode number, and a recording has no other name of a namespace: use a netns of the records", word)
	}
	return uint32(inode), nil
}

// recordedCgroup refuses each word: a record has the cgroup of the owner, and the filter is about the one in which the socket
// was created.
func recordedCgroup(string) (uint64, error) {
	return 0, errors.New("a recording does not have the cgroup in which a socket was created: use --container, --pod or --comm")
}

// checkRecordedComms rejects names that records do not have as they were: a character that is not UTF-8 is U+FFFD in them.
func checkRecordedComms(f *filter.Filter) error {
	for _, list := range []struct {
		flag  string
		comms []string
	}{{"--comm", f.Comms}, {"--not-comm", f.Not.Comms}} {
		for _, comm := range list.comms {
			if !utf8.ValidString(comm) || strings.ContainsRune(comm, utf8.RuneError) {
				return usagef("%s: records have U+FFFD in place of each byte of %q that is not UTF-8, so they do not show whether a name is this one: use --pid, or a file of --recording", list.flag, comm)
			}
		}
	}
	return nil
}
