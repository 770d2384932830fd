package replay

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/recording"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Watcher gets what a stream of records has, in its order; [*activity.Activity] is one. It must not keep the values, but
// for the transition's Cgroup, which never changes.
type Watcher interface {
	// Observe takes a transition.
	Observe(t *tcp.Transition)
	// Add takes a connection that has ended. Of its last transition the new state, the endpoints and the owner are known.
	Add(last *tcp.Transition, c *tcp.Connection)
	// Alert takes each phase of each alert. Of the culprit only the service is known.
	Alert(a *detect.Alert)
}

// Lost is how many transitions the records say were lost, so far.
func (r *Records) Lost() uint64 { return r.lost }

// Counts is as Counts of [Player].
func (r *Records) Counts() (seen, filtered uint64) { return r.seen, r.filtered }

// Now is the time of the last record.
func (r *Records) Now() time.Time { return r.Wall(r.now) }

// Wall returns the time of the records at a time of the engine, such as one that is passed to Pace. They differ if the wall
// clock was set back.
func (r *Records) Wall(at time.Duration) time.Time { return time.Unix(0, int64(at-r.behind)) }

// Destinations is that of [detect.Engine], at the time of the last record.
func (r *Records) Destinations(limit int) []detect.DestinationUsage {
	return r.engine.Destinations(r.now, limit)
}

// alertOf returns the alert of a record.
func alertOf(rec *recording.Record) detect.Alert {
	a := detect.Alert{
		Time: rec.Time.Std(), Monotonic: time.Duration(rec.Time), ID: rec.ID, Kind: rec.Kind, Phase: detect.Phase(rec.Phase),
		Lasted: time.Duration(rec.Lasted), Reason: detect.CloseReason(rec.CloseReason),
		Finding: detect.Finding{
			Severity: detect.Severity(rec.Severity), Netns: uint32(rec.Netns), Rate: rec.Rate, Capacity: rec.Capacity, CapacityKind: rec.CapacityKind,
			Local: endpoint(rec.LocalAddr, rec.LocalPort), Peer: endpoint(rec.PeerAddr, rec.PeerPort), Failures: rec.Failures,
			Unverified: rec.Confidence == "unverified", Cause: rec.Cause, Advice: rec.Advice,
			Culprit: detect.Culprit{Known: rec.Service != "", Service: rec.Service, Share: rec.Share},
		},
	}
	a.Role, _ = tcp.ParseRole(rec.Role)
	if rec.Occupancy != nil {
		a.Occupancy = *rec.Occupancy
	}
	if rec.ExhaustionIn != nil {
		a.Exhausts, a.ExhaustionIn = true, time.Duration(*rec.ExhaustionIn*float64(time.Second))
	}
	return a
}
