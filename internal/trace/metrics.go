package trace

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/metrics"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// endObserver takes the connections that end: summaries and metrics.
type endObserver interface {
	Add(last *tcp.Transition, c *tcp.Connection)
}

// endObservers are those that a run has.
func (cfg *Config) endObservers() (list []endObserver) {
	if cfg.Summary != nil {
		list = append(list, cfg.Summary)
	}
	if cfg.Metrics != nil {
		list = append(list, cfg.Metrics)
	}
	return list
}

// usageInterval is the time between two readings of the use of ports, which takes as long as a tick of detection.
const usageInterval = 5 * time.Second

func (l *loop) cgroupOf(id uint64) *tcp.Cgroup {
	info, _ := l.cgroups.Get(id)
	return (*tcp.Cgroup)(info)
}

// publishMetrics passes on the counts of the outputs if that is due.
func (l *loop) publishMetrics() {
	if l.Metrics == nil {
		return
	}
	if l.SocketCounts != nil {
		if c := l.SocketCounts.Answer(); c != nil {
			l.Metrics.Sockets(c, l.cgroupOf)
		}
	}
	now := time.Now()
	if !l.Metrics.Due(now) {
		return
	}
	l.publishCounts(now)
}

// publishCounts passes on the counts of the outputs.
func (l *loop) publishCounts(now time.Time) {
	if l.Monitor != nil && now.Sub(l.usageAt) >= usageInterval {
		l.usageAt = now
		l.Metrics.Usage(l.Monitor.Usage())
	}
	counts := make([]metrics.Counts, 0, len(l.outs.writers))
	for _, w := range l.outs.writers {
		counts = append(counts, metrics.Counts{Output: w.metricsName, Counts: w.counts()})
	}
	l.Metrics.Publish(now, counts)
}
