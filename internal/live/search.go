package live

import (
	"slices"
	"time"

	"github.com/tcpshift/tcpshift/internal/cputime"
	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/netns"
	"github.com/tcpshift/tcpshift/internal/safeopen"
)

const (
	// searchFactor times the CPU time of a search is the least time to the next one. So searches take a quarter of the
	// walker's hundredth of one CPU.
	searchFactor = 400
	// searchAgain is the time after which namespaces that the filter names and that were nowhere are searched for
	// again: in the threads and open files of all processes, which is costly.
	searchAgain = time.Minute
)

// search finds the namespaces whose connections are walked.
type search struct {
	filter *filter.Filter
	own    uint32                     // inode of this process's; 0: not known
	known  []netns.Namespace          // those of the last search that are still there
	named  map[uint32]netns.Namespace // those that the filter names, and that are costly to find
	due    time.Time                  // of the next search
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
// they are. It searches for them only if that is due and one may be unknown: the search takes a system call for each
// process of the host. cost is the CPU time of the search; 0: there was none.
func (s *search) find() (all []netns.Namespace, cost time.Duration) {
	if !time.Now().Before(s.due) && !s.hasAllNamed() {
		timer := cputime.Start()
		var costly time.Duration
		s.known, costly = s.search()
		cost = timer.Elapsed()
		s.due = time.Now().Add((cost - costly) * searchFactor)
	}
	return slices.Clone(s.known), cost
}

// hasAllNamed reports whether the filter names namespaces, and each one that it passes is known.
func (s *search) hasAllNamed() bool {
	unknown := func(inode uint32) bool { return !contains(s.known, inode) && s.filter.MatchesNetns(inode) }
	return len(s.filter.Netns) > 0 && !slices.ContainsFunc(s.filter.Netns, unknown)
}

func contains(all []netns.Namespace, inode uint32) bool {
	return slices.ContainsFunc(all, func(n netns.Namespace) bool { return n.Inode == inode })
}

// search returns what find does, and the CPU time of its costly part: see next.
func (s *search) search() (all []netns.Namespace, costly time.Duration) {
	all = slices.DeleteFunc(netns.OfProcesses(), func(n netns.Namespace) bool { return !s.filter.MatchesNetns(n.Inode) })
	var missing []uint32
	for _, inode := range s.filter.Netns {
		if !s.filter.MatchesNetns(inode) || contains(all, inode) {
			continue
		}
		if n, found := s.named[inode]; found {
			all = append(all, n)
		} else {
			missing = append(missing, inode)
		}
	}
	if len(missing) == 0 || time.Now().Before(s.next) {
		return all, 0
	}
	timer := cputime.Start()
	found := netns.FindExisting(missing)
	costly = timer.Elapsed()
	for _, n := range found {
		s.named[n.Inode] = n
	}
	if len(found) < len(missing) {
		s.next = time.Now().Add(max(searchAgain, costly*searchFactor))
	}
	return append(all, found...), costly
}

// forget removes a namespace that is no longer where it was found.
func (s *search) forget(inode uint32) {
	delete(s.named, inode)
	s.known = slices.DeleteFunc(s.known, func(n netns.Namespace) bool { return n.Inode == inode })
}
