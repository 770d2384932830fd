package record

import (
	"math"
	"strconv"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Alert implements [Encoder]: one paragraph that says who, where, how fast, how
// long is left, why, and what to do.
func (Text) Alert(dst []byte, a *detect.Alert) []byte {
	p := append(appendClock(append(dst, "! "...), a.Time), ' ')
	p = append(append(p, a.Kind...), ' ')
	switch a.Phase {
	case detect.Open:
		p = append(p, a.Severity...)
	case detect.Update:
		p = append(append(append(p, "still "...), a.Severity...), " after "...)
		p = append(p, a.Lasted.Round(time.Second).String()...)
	case detect.Close:
		p = append(append(p, "over after "...), a.Lasted.Round(time.Second).String()...)
	}
	p = append(p, ": "...)
	p = appendWho(p, &a.Process)
	p = appendWhere(p, a)
	p = appendHowMuch(p, a)
	if a.Phase == detect.Close {
		return append(p, ".\n"...)
	}
	p = appendHowLong(p, a)
	p = append(append(p, " Why: "...), clip(a.Cause)...)
	p = append(append(p, ". What to do: "...), clip(a.Advice)...)
	return append(p, ".\n"...)
}

func appendWho(p []byte, w *detect.TopProcess) []byte {
	if !w.Known {
		return append(p, "a process that is not known"...)
	}
	if w.PID == 0 {
		p = strconv.AppendInt(p, int64(w.Processes), 10)
		p = append(p, " or more processes named "...)
	}
	p = appendPrintable(p, w.Comm.Bytes())
	p = append(p, " ("...)
	if w.PID != 0 {
		p = append(strconv.AppendUint(append(p, "pid "...), uint64(w.PID), 10), ", "...)
	}
	p = append(strconv.AppendFloat(p, math.Floor(100*w.Share), 'f', 0, 64), " % of it"...)
	if w.PID != 0 && w.Processes > 1 {
		p = append(strconv.AppendInt(append(p, ", one of "...), int64(w.Processes), 10), " processes"...)
	}
	if w.Cgroup != nil && w.Cgroup.Container != "" {
		p = append(append(p, ", container "...), w.Cgroup.Container[:min(12, len(w.Cgroup.Container))]...)
	}
	return append(p, ')')
}

func appendWhere(p []byte, a *detect.Alert) []byte {
	r := row{p, len(p)}
	switch {
	case a.Peer.Addr.IsValid() && a.Role != tcp.RoleServer:
		r.dst = append(r.dst, " to "...)
		r.endpoint(0, a.Peer)
		if a.Local.Addr.IsValid() {
			r.dst = append(r.dst, " from "...)
			r.endpoint(0, a.Local)
		}
	case a.Local.Addr.IsValid() || a.Local.Port != 0:
		r.dst = append(r.dst, " at "...)
		r.endpoint(0, a.Local)
	}
	r.dst = append(r.dst, ", netns "...)
	return strconv.AppendUint(r.dst, uint64(a.Netns), 10)
}

// capacityWords are what a person calls a capacity.
var capacityWords = map[string]string{
	detect.EphemeralPorts:  " local ports taken",
	detect.TimeWaitBuckets: " TIME_WAITs there that the kernel keeps",
}

func appendHowMuch(p []byte, a *detect.Alert) []byte {
	p = append(p, ": "...)
	p = strconv.AppendFloat(p, a.Rate, 'f', 1, 64)
	p = append(append(append(p, ' '), a.Counted...), " a second"...)
	switch {
	case a.CapacityKind != "":
		p = strconv.AppendUint(append(p, ", "...), a.Occupancy, 10)
		p = strconv.AppendUint(append(p, " of "...), a.Capacity, 10)
		p = append(p, capacityWords[a.CapacityKind]...)
	case a.OccupancySource != "":
		p = strconv.AppendUint(append(p, ", "...), a.Occupancy, 10)
		p = append(p, " there"...)
	}
	if a.Failures > 0 {
		p = append(strconv.AppendUint(append(p, ", "...), a.Failures, 10), " failed so far"...)
	}
	return p
}

func appendHowLong(p []byte, a *detect.Alert) []byte {
	switch {
	case !a.Exhausts:
	case a.ExhaustionIn == 0:
		p = append(p, ". None is left"...)
	default:
		p = append(p, ". None is left in about "...)
		p = append(strconv.AppendFloat(p, a.ExhaustionIn.Seconds(), 'f', 1, 64), " s"...)
	}
	switch {
	case a.Lost > 0:
		p = append(p, " (not certain: "...)
		p = append(strconv.AppendUint(p, a.Lost, 10), " transitions were lost within a minute)"...)
	case a.Approximate:
		p = append(p, " (not certain: the numbers are approximate)"...)
	}
	return append(p, '.')
}
