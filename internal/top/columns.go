package top

import (
	"cmp"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/tcpshift/tcpshift/internal/activity"
	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/summary"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// byMost orders numbers, the largest first.
func byMost[T any, N cmp.Ordered](value func(r *T) N) func(a, b *T) int {
	return func(a, b *T) int { return cmp.Compare(value(b), value(a)) }
}

// byLeast orders the smallest first.
func byLeast[T any, N cmp.Ordered](value func(r *T) N) func(a, b *T) int {
	return func(a, b *T) int { return cmp.Compare(value(a), value(b)) }
}

// counts is a column of numbers.
func counts[T any](title string, width, keep int, value func(r *T) uint64, look func(r *T) look) column[T] {
	return column[T]{
		title: title, width: width, keep: keep, look: look, order: byMost(value),
		text: func(r *T) string { return number(value(r), width) },
	}
}

// number writes a number in at most a number of cells.
func number(n uint64, cells int) string {
	s := record.Count(n)
	if len(s) <= cells {
		return s
	}
	for unit, name := range []string{"k", "M", "G", "T", "P", "E"} {
		scale := uint64(1)
		for range unit + 1 {
			scale *= 1000
		}
		if s = strconv.FormatUint(n/scale, 10) + name; len(s) <= cells {
			return s
		}
	}
	return s
}

// rate writes events per second.
func rate(perSecond float64) string {
	switch {
	case perSecond <= 0:
		return "0"
	case perSecond < 9.95:
		return strconv.FormatFloat(perSecond, 'f', 1, 64)
	}
	return record.Count(uint64(perSecond + 0.5))
}

// alarming looks bad where a number is not zero.
func alarming[T any](value func(r *T) uint64) func(r *T) look {
	return func(r *T) look {
		if value(r) > 0 {
			return bad
		}
		return plain
	}
}

func serviceName(s *activity.Service) string {
	switch {
	case s.Other:
		return "(all others)"
	case s.Name == "":
		return "not known"
	}
	return text(s.Name)
}

func serviceID(s *activity.Service) string {
	return fmt.Sprintf("%t %d %s", s.Other, s.CgroupID, s.Comm.Bytes())
}

func failures(s *activity.Service) uint64 { return s.Failures() }

func closeWaits(s *activity.Service) uint64 { return s.CloseWait }

var services = table[activity.Service]{
	id: serviceID, words: serviceName, sorted: 1, none: "no connection has ended, and no socket is open",
	columns: []column[activity.Service]{
		{title: "SERVICE", width: 18, left: true, text: serviceName, order: byLeast(serviceName)},
		{
			title: "CONN/s", width: 7, keep: 9, order: byMost(func(s *activity.Service) float64 { return s.Rate }),
			text: func(s *activity.Service) string { return rate(s.Rate) },
		},
		counts("TOTAL", 9, 8, func(s *activity.Service) uint64 { return s.Connections }, nil),
		counts("FAILED", 8, 10, failures, alarming(failures)),
		counts("CLOSE_WAIT", 11, 7, closeWaits, alarming(closeWaits)),
		counts("RETRANS", 8, 6, func(s *activity.Service) uint64 { return s.Retransmits }, nil),
		counts("OPEN", 7, 5, func(s *activity.Service) uint64 { return s.Open }, nil),
		counts("TIME_WAIT", 10, 1, func(s *activity.Service) uint64 { return s.TimeWaits }, nil),
		sizes("SENT", 4, func(s *activity.Service) uint64 { return s.Sent }),
		sizes("RECEIVED", 3, func(s *activity.Service) uint64 { return s.Received }),
	},
}

func sizes[T any](title string, keep int, value func(r *T) uint64) column[T] {
	return column[T]{
		title: title, width: 9, keep: keep, order: byMost(value),
		text: func(r *T) string { return record.Size(value(r)) },
	}
}

// endpoint writes an address and a port as ss(8) does.
func endpoint(addr netip.Addr, port uint16) string {
	switch {
	case !addr.IsValid() && port == 0:
		return "-"
	case !addr.IsValid():
		return "*:" + strconv.Itoa(int(port))
	}
	return netip.AddrPortFrom(addr, port).String()
}

func destinationName(d *detect.DestinationUsage) string { return endpoint(d.Peer, d.PeerPort) }

func destinationID(d *detect.DestinationUsage) string {
	return fmt.Sprintf("%s %s %d", destinationName(d), d.Local, d.Netns)
}

// timeLeft is when the ports are exhausted. never is how long that takes if it does not come.
const never = time.Duration(1<<63 - 1)

func timeLeft(d *detect.DestinationUsage) time.Duration {
	if d.Exhausts {
		return d.ExhaustedIn
	}
	return never
}

func destinationLook(d *detect.DestinationUsage) look {
	switch {
	case d.Exhausts && d.ExhaustedIn < 20*time.Second:
		return bad
	case d.Exhausts || d.Share() >= 0.7:
		return notable
	}
	return plain
}

var destinations = table[detect.DestinationUsage]{
	id: destinationID, words: destinationName, sorted: 1, none: "no destination whose ports are known is in use",
	columns: []column[detect.DestinationUsage]{
		{title: "DESTINATION", width: 20, left: true, text: destinationName, order: byLeast(destinationName)},
		{
			title: "PORTS USED", width: 16, keep: 9, look: destinationLook, order: byMost((*detect.DestinationUsage).Share),
			text: func(d *detect.DestinationUsage) string {
				of := record.Count(uint64(d.Ports))
				if d.Assumed {
					of = "~" + of
				}
				return record.Count(uint64(d.PortsUsed+0.5)) + " of " + of
			},
		},
		{
			title: "%", width: 5, keep: 8, look: destinationLook, order: byMost((*detect.DestinationUsage).Share),
			text: func(d *detect.DestinationUsage) string { return strconv.Itoa(int(100*d.Share() + 0.5)) },
		},
		{
			title: "OPENED/s", width: 9, keep: 6, order: byMost(func(d *detect.DestinationUsage) float64 { return d.Rate }),
			text: func(d *detect.DestinationUsage) string { return rate(d.Rate) },
		},
		{title: "TIME LEFT", width: 10, keep: 10, look: destinationLook, order: byLeast(timeLeft), text: timeLeftText},
		{
			title: "FROM", width: 15, keep: 2, left: true, order: byLeast(func(d *detect.DestinationUsage) string { return d.Local.String() }),
			text: func(d *detect.DestinationUsage) string { return d.Local.String() },
		},
		{
			title: "NETNS", width: 11, keep: 1, order: byLeast(func(d *detect.DestinationUsage) uint32 { return d.Netns }),
			text: func(d *detect.DestinationUsage) string { return strconv.FormatUint(uint64(d.Netns), 10) },
		},
	},
}

func timeLeftText(d *detect.DestinationUsage) string {
	switch {
	case !d.Exhausts:
		return "-"
	case d.ExhaustedIn <= 0:
		return "exhausted"
	}
	return record.Duration(d.ExhaustedIn.Round(100 * time.Millisecond))
}

// alertAbout names what an alert is about.
func alertAbout(a *detect.Alert) string {
	peer, local := endpoint(a.Peer.Addr, a.Peer.Port), endpoint(a.Local.Addr, a.Local.Port)
	switch {
	case a.Role == tcp.RoleClient && peer != "-":
		return peer
	case local != "-":
		return local
	}
	return peer
}

func alertService(a *detect.Alert) string { return text(a.Culprit.Service) }

func alertLook(a *detect.Alert) look {
	if a.Severity == detect.Critical {
		return bad
	}
	return notable
}

func alertUse(a *detect.Alert) string {
	switch {
	case a.Capacity > 0:
		return record.Count(a.Occupancy) + " of " + record.Count(a.Capacity)
	case a.Occupancy > 0:
		return record.Count(a.Occupancy)
	case a.Failures > 0:
		return record.Count(a.Failures) + " failed"
	}
	return "-"
}

var alerts = table[detect.Alert]{
	id: func(a *detect.Alert) string { return a.ID }, sorted: 0, none: "no alert is open",
	words: func(a *detect.Alert) string { return a.Kind + " " + alertService(a) + " " + alertAbout(a) },
	columns: []column[detect.Alert]{
		{title: "ALERT", width: 22, left: true, look: alertLook, text: func(a *detect.Alert) string { return text(a.Kind) }, order: byLeast(func(a *detect.Alert) detect.Severity { return a.Severity })},
		{title: "SERVICE", width: 14, keep: 8, left: true, text: alertService, order: byLeast(alertService)},
		{title: "ABOUT", width: 21, keep: 7, left: true, text: alertAbout, order: byLeast(alertAbout)},
		{title: "IN USE", width: 16, keep: 6, text: alertUse, order: byMost(func(a *detect.Alert) uint64 { return a.Occupancy })},
		{title: "FOR", width: 7, keep: 5, text: func(a *detect.Alert) string { return record.Duration(a.Lasted.Round(time.Second)) }, order: byMost(func(a *detect.Alert) time.Duration { return a.Lasted })},
	},
}

// rowService names the service of a row of details.
func rowService(r *summary.Row) string {
	switch {
	case r.Other:
		return "(all others)"
	case !r.OwnerKnown:
		return "not known"
	}
	return text(r.Service)
}

func rowFailures(r *summary.Row) uint64 { return r.Failures() }

// rowName is the endpoint of a row: that of the peer, and the local port of a server.
func rowName(r *summary.Row) string {
	switch {
	case r.Other:
		return "(all others)"
	case r.Role == tcp.RoleServer:
		return fmt.Sprintf(":%d from %s", r.Port, r.Peer)
	case r.Role == tcp.RoleClient:
		return endpoint(r.Peer, r.Port)
	}
	return endpoint(r.Peer, r.Port) + " (role not known)"
}

// failedHow lists how connections have failed, in the order of [summary.Failures].
func failedHow(r *summary.Row) string {
	var parts []string
	for i, n := range r.Failed {
		if n > 0 {
			parts = append(parts, number(n, 8)+" "+string(summary.Failures[i]))
		}
	}
	return strings.Join(parts, ", ")
}

func quantile(q summary.Quantiles, d time.Duration) string {
	if !q.Known {
		return "-"
	}
	return record.Duration(d)
}

var details = table[summary.Row]{
	id:    func(r *summary.Row) string { return fmt.Sprintf("%s %s %d", rowName(r), rowService(r), r.CgroupID) },
	words: func(r *summary.Row) string { return rowName(r) + " " + rowService(r) }, sorted: 2, none: "no connection has ended",
	columns: []column[summary.Row]{
		{title: "CONNECTIONS", width: 21, left: true, text: rowName, order: byLeast(rowName)},
		{title: "SERVICE", width: 14, keep: 3, left: true, text: rowService, order: byLeast(rowService)},
		counts("TOTAL", 9, 10, func(r *summary.Row) uint64 { return r.Connections }, nil),
		counts("FAILED", 8, 9, rowFailures, alarming(rowFailures)),
		{title: "HOW", width: 17, keep: 5, left: true, text: failedHow, order: byLeast(failedHow)},
		counts("RETRANS", 8, 8, func(r *summary.Row) uint64 { return r.Retransmits }, nil),
		{title: "LASTS p50", width: 9, keep: 7, text: func(r *summary.Row) string { return quantile(r.Duration, r.Duration.P50) }, order: byMost(func(r *summary.Row) time.Duration { return r.Duration.P50 })},
		{title: "p99", width: 8, keep: 4, text: func(r *summary.Row) string { return quantile(r.Duration, r.Duration.P99) }, order: byMost(func(r *summary.Row) time.Duration { return r.Duration.P99 })},
		{title: "RTT p50", width: 8, keep: 2, text: func(r *summary.Row) string { return quantile(r.RTT, r.RTT.P50) }, order: byMost(func(r *summary.Row) time.Duration { return r.RTT.P50 })},
		sizes("SENT", 1, func(r *summary.Row) uint64 { return r.Sent }),
		sizes("RECEIVED", 0, func(r *summary.Row) uint64 { return r.Received }),
	},
}
