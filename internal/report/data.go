package report

import (
	"cmp"
	"slices"

	"github.com/tcpshift/tcpshift/internal/recording"
	"github.com/tcpshift/tcpshift/internal/summary"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// pageData is what the scripts of the page need. All of its strings have passed text.
type pageData struct {
	Series      series
	Ends        []string // names of series.Ended
	Failures    []string
	States      []string
	Alerts      []alertData
	Base        int64 // the time of the first record: seconds since 1970
	BaseNs      int64 // and nanoseconds
	Connections []connectionData
}

// alertData are the times of an alert in seconds since 1970, and its occupancy.
type alertData struct {
	Label    string
	Critical bool
	From, To float64
	Points   [][2]float64 // time, percent of the capacity
}

// connectionData is a connection. Times are nanoseconds since the first record of the report.
type connectionData struct {
	Conn, Service, Comm, Role, Local, Peer, End string
	PID                                         uint32           `json:",omitempty"`
	From, To                                    int64            // To: of the last record
	Open                                        bool             `json:",omitempty"`
	Sent, Received, Retransmits                 uint64           `json:",omitempty"`
	RTT                                         int64            `json:",omitempty"`
	Error, Reset, Cgroup, State                 string           `json:",omitempty"`
	Partial                                     bool             `json:",omitempty"`
	Steps                                       [][3]interface{} `json:",omitempty"` // time, old state, new state
	StepsMore                                   int              `json:",omitempty"`
}

func isFailure(closedBy string) bool {
	return closedBy != "" && slices.Contains(summary.Failures[:], tcp.ClosedBy(closedBy))
}

func (r *Report) pageData() pageData {
	d := pageData{
		Series: r.axis.series(r.types["transition"] > 0), Base: int64(r.axis.begun) / 1e9, BaseNs: int64(r.axis.begun) % 1e9, States: states[:],
		Alerts: []alertData{}, Connections: []connectionData{}, // null is no list to the scripts
	}
	for _, by := range ends {
		d.Ends = append(d.Ends, cmp.Or(string(by), "not known"))
		if isFailure(string(by)) {
			d.Failures = append(d.Failures, string(by))
		}
	}
	for _, l := range r.alerts.sorted() {
		d.Alerts = append(d.Alerts, r.alertData(l))
	}
	for i := range r.lives.picked {
		for _, l := range r.lives.picked[i].sorted() {
			d.Connections = append(d.Connections, r.connectionData(l))
		}
	}
	return d
}

func seconds(t recording.Time) float64 { return float64(t) / 1e9 }

func (r *Report) alertData(l *alertLife) alertData {
	d := alertData{
		Label:    text(cut(l.last.Kind, 40) + " · " + cmp.Or(cut(l.last.Service, 60), aboutOf(&l.last))),
		Critical: l.critical, From: seconds(l.first.Time), To: seconds(r.axis.last()),
	}
	if l.last.Phase == "close" {
		d.To = seconds(l.last.Time)
	}
	for _, p := range l.points {
		if p.Capacity > 0 {
			d.Points = append(d.Points, [2]float64{seconds(p.At), 100 * float64(p.Occupancy) / float64(p.Capacity)})
		}
	}
	return d
}

func (r *Report) connectionData(l *life) connectionData {
	c, s := &l.connection, &l.socket
	d := connectionData{
		Conn: text(s.Conn), Service: text(l.service), Comm: text(l.owner.Comm), PID: l.owner.PID, Cgroup: text(l.owner.Cgroup), Role: text(s.Role),
		Local: text(endpoint(s.LocalAddr, s.LocalPort)), Peer: text(endpoint(s.PeerAddr, s.PeerPort)),
		From: int64(l.first - r.axis.begun), To: int64(l.last - r.axis.begun), Open: !l.ended,
		End: text(c.ClosedBy), State: text(l.state), Error: text(s.Error), Reset: text(c.ResetReason), Partial: c.Partial,
		Sent: c.Sent, Received: c.Received, Retransmits: c.Retransmits, RTT: c.RTT, StepsMore: l.stepsMore,
	}
	if d.Open {
		d.To = int64(r.axis.last() - r.axis.begun)
	}
	for _, st := range l.steps {
		d.Steps = append(d.Steps, [3]any{int64(st.At - r.axis.begun), text(st.Old), text(st.New)})
	}
	return d
}
