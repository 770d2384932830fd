package trace

import (
	"github.com/tcpshift/tcpshift/internal/cgroup"
	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/tcp"
	"github.com/tcpshift/tcpshift/internal/workload"
)

// Names finds the names of containers and pods; [*workload.Resolver] is one. Its methods do not
// wait.
type Names interface {
	// Request asks for the names of what runs in a cgroup that has been seen for the first time.
	Request(cgroupID uint64, info *cgroup.Info)
	// Answers returns what has been found since the last call. A request for which nothing is found has no
	// answer.
	Answers() []workload.Answer
}

// takeNames adds the names that have been found to the cgroups. Later transitions and alerts have them.
func (l *loop) takeNames() {
	if l.Names == nil {
		return
	}
	for _, a := range l.Names.Answers() {
		l.cgroups.SetNames(a.CgroupID, a.Key.Container, a.Key.PodUID, a.Names)
	}
}

// renameCulprit gives an alert the names that were found since its service's last transition.
func (l *loop) renameCulprit(a *detect.Alert) {
	if l.Names == nil {
		return
	}
	a.Culprit.Rename(func(id uint64) *tcp.Cgroup {
		info, _ := l.cgroups.Get(id)
		if l.Recording != nil {
			l.Recording.Named(id, (*tcp.Cgroup)(info))
		}
		return (*tcp.Cgroup)(info)
	})
}
