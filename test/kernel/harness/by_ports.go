package harness

import (
	"cmp"
	"slices"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// byPorts assigns the transitions to endpoints by port numbers, for kernels on which
// records have no cookie.
func byPorts(endpoints []*tcplab.Endpoint, lines []Record) (of map[*tcplab.Endpoint][]Record, rest []Record) {
	of, rest = map[*tcplab.Endpoint][]Record{}, slices.Clone(lines)
	// The endpoints with the most known ports come first; the others get the remaining
	// records.
	endpoints = slices.Clone(endpoints)
	slices.SortStableFunc(endpoints, func(a, b *tcplab.Endpoint) int { return -cmp.Compare(portsKnown(a), portsKnown(b)) })
	for _, p := range endpoints {
		rest = slices.DeleteFunc(rest, func(l Record) bool {
			mine := hasPortsOf(l, p)
			if mine {
				of[p] = append(of[p], l)
			}
			return mine
		})
		if i := opening(rest, of[p]); i >= 0 {
			of[p] = slices.Insert(of[p], 0, rest[i])
			rest = slices.Delete(rest, i, i+1)
		}
	}
	return of, rest
}

// portsKnown is 2 for a socket with a peer, 1 for one that never had a local port, and
// 0 for a listener, because the first transition of its children looks like its own.
func portsKnown(p *tcplab.Endpoint) int {
	return min(int(p.Local.Port()), 1)*min(int(p.Remote.Port()), 1) + min(int(p.Remote.Port()), 1)
}

func hasPortsOf(l Record, p *tcplab.Endpoint) bool {
	return l.PeerPort == p.Remote.Port() && (l.LocalPort == p.Local.Port() || p.Local.Port() == 0)
}

// opening returns the index of the transition with which the socket of lines began, or
// -1 if lines contains it. That transition comes before the socket has both its ports.
func opening(all, lines []Record) int {
	if len(lines) == 0 || lines[0].Old == "CLOSE" || lines[0].Old == "LISTEN" {
		return -1
	}
	first := lines[0]
	for i, l := range slices.Backward(all) {
		if l.Seq < first.Seq && l.New == first.Old && l.Old != l.New &&
			(l.LocalPort == 0 || l.LocalPort == first.LocalPort) && (l.PeerPort == 0 || l.PeerPort == first.PeerPort) {
			return i
		}
	}
	return -1
}
