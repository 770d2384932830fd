package record

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Alert implements [Encoder]. It appends who, where, how much, how long until nothing is
// left, why, and what to do. On a terminal these are lines, which are wrapped; otherwise
// the whole alert is one line.
func (t Text) Alert(dst []byte, a *detect.Alert) []byte {
	begin := len(dst)
	lineBreak := " "
	if t.Screen != nil {
		lineBreak = "\n!   "
	}
	p := append(appendClock(append(dst, "! "...), a.Time), ' ')
	p = appendPhase(p, a)
	if a.Kind != detect.AlertsSuppressed { // all services may have a part in that
		p = appendWho(append(p, ": "...), &a.Culprit)
	}
	p = appendWhere(p, a)
	p = append(append(p, ':'), lineBreak...)
	p = appendHowMuch(p, a)
	if a.Phase != detect.Close {
		p = appendHowLong(p, a)
		// Cause and Advice may contain names of processes.
		p = appendPrintable(append(append(p, lineBreak...), "Why: "...), []byte(clip(a.Cause, maxAlertCause)))
		p = appendPrintable(append(append(append(p, '.'), lineBreak...), "What to do: "...), []byte(clip(a.Advice, maxAlertAdvice)))
	}
	return t.finishLines(append(p, ".\n"...), begin, alertColor(a), "")
}

func alertColor(a *detect.Alert) sgr {
	switch {
	case a.Phase == detect.Close:
		return sgrBoldGreen
	case a.Severity == detect.Critical:
		return sgrBoldRed
	}
	return sgrBoldAmber
}

// appendPhase appends the severity and the kind, such as CRITICAL time_wait_storm. The
// kind is a topic of tcpshift explain.
func appendPhase(p []byte, a *detect.Alert) []byte {
	if a.Phase == detect.Close {
		p = append(append(p, "OVER "...), a.Kind...)
		p = append(p, " after "...)
		return append(p, a.Lasted.Round(time.Second).String()...)
	}
	p = append(append(p, strings.ToUpper(string(a.Severity))...), ' ')
	p = append(p, a.Kind...)
	if a.Phase == detect.Update {
		p = append(append(p, " for "...), a.Lasted.Round(time.Second).String()...)
	}
	return p
}

// appendWho appends the two services that cause most, such as
// "php-fpm8.2 (6 processes, 70 %, most of it pid 4711; next python3, 30 %)".
func appendWho(p []byte, c *detect.Culprit) []byte {
	if !c.Known {
		return append(p, "an unknown process"...)
	}
	p = append(appendPrintable(p, []byte(c.Service)), " ("...)
	if comm := c.Comm.Bytes(); string(comm) != c.Service {
		p = append(appendPrintable(p, comm), ", "...)
	}
	isMost := c.PID != 0 && 2*c.PIDShare > c.Share
	switch {
	case c.Processes == 0:
		p = append(p, "no process of it lives"...)
	case c.Processes == 1 && isMost:
		p = strconv.AppendUint(append(p, "pid "...), uint64(c.PID), 10)
	case c.Processes == 1:
		p = append(p, "1 process"...)
	default:
		p = append(strconv.AppendInt(p, int64(c.Processes), 10), " processes"...)
	}
	p = appendPercent(append(p, ", "...), c.Share)
	switch {
	case c.PID == 0 || c.Processes == 1 && isMost:
	case isMost:
		p = strconv.AppendUint(append(p, ", most of it pid "...), uint64(c.PID), 10)
	default:
		p = strconv.AppendUint(append(p, ", the busiest is pid "...), uint64(c.PID), 10)
		p = appendPercent(append(p, " with "...), c.PIDShare)
	}
	if c.NextService != "" {
		p = appendPrintable(append(p, "; next "...), []byte(c.NextService))
		p = appendPercent(append(p, ", "...), c.NextShare)
	}
	return append(p, ')')
}

func appendPercent(p []byte, share float64) []byte {
	return append(strconv.AppendFloat(p, math.Floor(100*share), 'f', 0, 64), " %"...)
}

func appendWhere(p []byte, a *detect.Alert) []byte {
	switch {
	case a.Peer.Addr.IsValid() && a.Role != tcp.RoleServer:
		p = appendEndpoint(append(p, " to "...), a.Peer)
		if a.Local.Addr.IsValid() {
			p = appendEndpoint(append(p, " from "...), a.Local)
		}
	case a.Local.Addr.IsValid() || a.Local.Port != 0:
		p = appendEndpoint(append(p, " at "...), a.Local)
	}
	p = append(p, ", netns "...)
	return strconv.AppendUint(p, uint64(a.Netns), 10)
}

// capacityWords follow "350 of 500", by kind of capacity.
var capacityWords = map[string]string{
	detect.EphemeralPorts:  " local ports taken",
	detect.TimeWaitBuckets: " TIME_WAITs that the kernel allows there",
	detect.AcceptQueue:     " places in the accept queue taken",
}

func appendHowMuch(p []byte, a *detect.Alert) []byte {
	p = strconv.AppendFloat(p, a.Rate, 'f', 1, 64)
	p = append(append(append(p, ' '), a.RateUnit...), " a second"...)
	switch {
	case a.CapacityKind != "":
		p = strconv.AppendUint(append(p, ", "...), a.Occupancy, 10)
		p = strconv.AppendUint(append(p, " of "...), a.Capacity, 10)
		p = append(p, capacityWords[a.CapacityKind]...)
	case a.OccupancySource != "":
		p = strconv.AppendUint(append(p, ", "...), a.Occupancy, 10)
		p = append(p, " now"...)
	}
	if a.Drops > 0 {
		p = append(strconv.AppendUint(append(p, ", "...), a.Drops, 10), " dropped so far"...)
	}
	if a.Overflows > 0 {
		p = append(strconv.AppendUint(append(p, ", "...), a.Overflows, 10), " closed without one so far"...)
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
	case a.Unverified:
		p = append(p, " (not verified with the kernel)"...)
	case a.Lost > 0:
		p = append(p, " (not certain: "...)
		p = append(appendCount(p, a.Lost, "transition was", "transitions were"), " lost within a minute)"...)
	case a.Approximate:
		p = append(p, " (not certain: the numbers are approximate)"...)
	}
	return append(p, '.')
}
