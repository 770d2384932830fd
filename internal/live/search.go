package live

import (
	"slices"
	"time"

	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/netns"
	"github.com/tcpshift/tcpshift/internal/safeopen"
)

// searchAgain is the time after which namespaces that the filter names and that were nowhere are searched for
// again: in the threads and open files of all processes, which is costly.
const searchAgain = time.Minute

// search finds the namespaces whose connections are walked.
type search struct {
	filter *filter.Filter
	own    uint32                     // inode of this process's; 0: not known
	named  map[uint32]netns.Namespace // those that the filter names, and that are costly to find
	next   time.Time                  // of the next costly search
}

func newSearch(f *filter.Filter) search {
	own, err := safeopen.NetnsInode("/proc/self/ns/net")
	if err != nil {
		own = 0
	}
	return search{filter: f, own: own, named: make(map[uint32]netns.Namespace)}
}

// find returns the namespaces of processes and of mounts that the filter passes, and those that it names wherever
// they are.
func (s *search) find() []netns.Namespace {
	all := slices.DeleteFunc(netns.OfProcesses(), func(n netns.Namespace) bool { return !s.filter.MatchesNetns(n.Inode) })
	var missing []uint32
	for _, inode := range s.filter.Netns {
		if !s.filter.MatchesNetns(inode) || slices.ContainsFunc(all, func(n netns.Namespace) bool { return n.Inode == inode }) {
			continue
		}
		if n, found := s.named[inode]; found {
			all = append(all, n)
		} else {
			missing = append(missing, inode)
		}
	}
	if len(missing) == 0 || time.Now().Before(s.next) {
		return all
	}
	found := netns.FindExisting(missing)
	for _, n := range found {
		s.named[n.Inode] = n
	}
	if len(found) < len(missing) {
		s.next = time.Now().Add(searchAgain)
	}
	return append(all, found...)
}

// forget removes a namespace that is no longer where it was found.
func (s *search) forget(inode uint32) { delete(s.named, inode) }
