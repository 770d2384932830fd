package detect

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/detect/rate"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Process identifies a process: its pid in the initial pid namespace, and a time at which it
// lived. A process with that pid that has started later is another one.
type Process struct {
	PID uint32
	At  time.Duration // CLOCK_BOOTTIME
}

// Culprit is the service that causes most of what an alert reports. A service is all
// processes in one cgroup whose main threads have one name.
type Culprit struct {
	Known   bool    // false: no process is known, and the other fields are zero
	Service string  // the name of its systemd unit, without the suffix; else of its container; else Comm
	Share   float64 // 0 to 1: the part of the cause that certainly is of this service
	Comm    tcp.Comm
	Cgroup  *tcp.Cgroup // nil: not known
	// Processes is how many processes of the service live and take part. Of more than
	// maxProcesses it is a lower bound.
	Processes int
	PID       uint32  // of the busiest of them, if it is of the user of most; 0: none lives, or none stands out
	PIDShare  float64 // of the process PID: the part of the cause that certainly is of it
	// Process is what /proc says of the process PID. The trace loop sets it, as that of a transition.
	Process *tcp.Process

	NextService string  // the next largest service; "": there is none
	NextShare   float64 // of NextService

	first, next service        // what Service and NextService name; the zero value of next: none
	user        uint32         // whose processes have caused most, living or not: see quotaOf
	candidates  []processCount // processes of the service that take part and may live
	total       uint64         // count of all services: what the shares are fractions of
}

// service identifies a service.
type service struct {
	cgroupID uint64
	comm     tcp.Comm
}

// nameNext sets NextService. A unit or container may run several programs.
func (c *Culprit) nameNext(cgroup *tcp.Cgroup) {
	if c.NextService = tcp.ServiceName(cgroup, &c.next.comm); c.NextService == c.Service {
		c.NextService = string(c.next.comm.Bytes())
	}
}

// Rename takes the names that were found since the last transition of the services. cgroupOf returns what is
// known now of a cgroup, by its id, or nil; then the name stays.
func (c *Culprit) Rename(cgroupOf func(id uint64) *tcp.Cgroup) {
	if !c.Known {
		return
	}
	if cgroup := cgroupOf(c.first.cgroupID); cgroup != nil {
		c.Cgroup, c.Service = cgroup, tcp.ServiceName(cgroup, &c.Comm)
	}
	if cgroup := cgroupOf(c.next.cgroupID); c.NextService != "" && cgroup != nil {
		c.nameNext(cgroup)
	}
}

// minShareNamed is the least share of a process or of a second service that is named. Less
// may be chance: a shell loop starts a new process for each connection.
const minShareNamed = 0.02

// nameLiving drops the candidates that are gone; gone may be nil. It sets Processes to the number of the others, and
// PID to the busiest of them, unless the share of that process may be chance.
func (c *Culprit) nameLiving(gone func(Process) bool) {
	c.PID, c.PIDShare, c.Processes = 0, 0, 0
	var living []processCount
	var most uint64
	for _, p := range c.candidates {
		if gone != nil && gone(Process{PID: p.pid, At: p.at}) {
			continue
		}
		living = append(living, p)
		// A single count may be chance, unless it is all there is.
		// In one cgroup users may take the names of each other's processes.
		if count := p.atLeast(); quotaOf(p.uid) == c.user && count > most && (count > 1 || count == c.total) {
			most, c.PID = count, p.pid
		}
	}
	c.candidates, c.Processes = living, len(living)
	c.PIDShare = min(c.Share, float64(most)/float64(max(1, c.total)))
	if c.PIDShare < minShareNamed {
		c.PID, c.PIDShare = 0, 0
	}
}

// culpritOf names the service that has caused most, and the processes that took part within the last
// minute. It assumes that all of them live. The lifecycle finds out which do when it reports an alert, so
// a cause without an alert costs no look into /proc.
func (tr *tracker) culpritOf(s *topServices) Culprit {
	return s.culprit(tr.now - rate.TimeWaitHold)
}

// culpritOfSockets is culpritOf where s counts sockets that processes have: a process takes part as long
// as it has some.
func (tr *tracker) culpritOfSockets(s *topServices) Culprit { return s.culprit(0) }
