package report

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/recording"
)

// text returns what a recording says as text that shows all of itself: no name can look like another.
func text(s string) string { return record.Printable(cut(s, 1000)) }

func count(n uint64) string { return record.Count(n) }

// size writes a number of bytes.
func size(n uint64) string {
	if n < 1<<10 {
		return strconv.FormatUint(n, 10) + " B"
	}
	value, unit := float64(n), 0
	for value >= 1<<10 && unit < 6 {
		value /= 1 << 10
		unit++
	}
	return fmt.Sprintf("%.1f %ciB", value, " KMGTPE"[unit])
}

// nanoseconds writes a duration with about three digits.
func nanoseconds(ns int64) string {
	d := time.Duration(ns)
	switch {
	case d < time.Microsecond:
		return d.String()
	case d < time.Millisecond:
		return fmt.Sprintf("%.3g µs", float64(d)/1e3)
	case d < time.Second:
		return fmt.Sprintf("%.3g ms", float64(d)/1e6)
	case d < time.Minute:
		return fmt.Sprintf("%.3g s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%.1f days", d.Hours()/24)
}

// percent writes part of whole.
func percent(part, whole uint64) string {
	if whole == 0 {
		return ""
	}
	share := 100 * float64(part) / float64(whole)
	if share > 0 && share < 0.1 {
		return "< 0.1 %"
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", share), ".0") + " %"
}

// moment writes a time to the second, in UTC.
func moment(t recording.Time) string { return t.Std().Format(time.DateTime) }

// clock writes the time of a day to the millisecond, in UTC.
func clock(t recording.Time) string { return t.Std().Format("15:04:05.000") }
