package detect

import (
	"math"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect/rate"
)

// timeWaitStorm is the kind of alert of portStorm and bucketStorm.
const timeWaitStorm = "time_wait_storm"

const (
	// minConnections is the least number of connections in a storm, whatever the capacity.
	minConnections = 8
	// minShare is the fraction of a capacity below which no forecast is made.
	minShare = 0.25
	// exhaustedShare is the fraction of a capacity that counts as exhausted.
	exhaustedShare = 0.95
	// pipelineDelay is how long it takes at most, in seconds, from an event in the kernel to the
	// output of its alert. An alert opens earlier by what is taken in that time.
	pipelineDelay = 0.1
	// criticalWithin is how soon a capacity must be exhausted for an alert to be critical.
	criticalWithin = 20 * time.Second
)

// opensStorm decides whether a storm is certain enough for an alert: exhaustion is
// forecast, by more than chance; and either it is near and most of the capacity is
// taken, or the rate that leads there is sustained. docs/detection.md has the reasons.
// unsure is by how much the rate may be too high, per second.
func opensStorm(r *rate.Estimator, f rate.Forecast, m rate.TimeWaitModel, threshold, unsure float64) bool {
	// The peers of what waits for a FIN may all close in a moment: no early forecast then.
	early := m.ReuseAfter == 0 || m.FinFraction > 0.5
	taken := f.Occupancy / f.Capacity
	if !f.Exhausts || taken < exhaustedShare && f.Rate*min(rate.MaxWindow, r.Age()).Seconds() < minConnections {
		return false // so few connections make no rate
	}
	if _, exhausts := r.Exhaustion(f.Rate-f.Deviation-unsure, m, f.Capacity); !exhausts {
		return false
	}
	near := min(threshold, max(threshold-0.1, 0.8-pipelineDelay*f.Rate/f.Capacity))
	if (f.ExhaustedIn > rate.MaxWindow || taken < near) && (!early || taken < threshold-0.2 || !r.Sustained(f)) {
		return false
	}
	return !r.Declining(f) && (r.Significant(f, m) || taken >= exhaustedShare)
}

// keepsStorm decides whether an open alert stays open.
func keepsStorm(f rate.Forecast) bool {
	return f.Exhausts || f.Occupancy >= exhaustedShare*f.Capacity
}

// isSuspected reports whether a storm is likely enough to be watched closely: the engine then
// requests the limits of the namespace every second instead of every ten, and counts of the
// kernel's table.
func isSuspected(f rate.Forecast) bool {
	return f.Exhausts || f.Occupancy >= suspectedShare*f.Capacity
}

func stormSeverity(f rate.Forecast) Severity {
	if f.Exhausts && f.ExhaustedIn < criticalWithin {
		return Critical
	}
	return Warning
}

func round(v float64) uint64 { return uint64(math.Round(max(0, v))) }
