package record

import (
	"math"
	"strconv"
	"time"
)

// appendDuration writes a duration for people, in at most seven cells up to 999 days:
// three digits up to a minute, such as 48µs, 1.95ms or 12.3s; then two units, such as
// 4m7s, 2h15m or 3d4h.
func appendDuration(dst []byte, d time.Duration) []byte {
	if d < 0 {
		return append(dst, '-')
	}
	if d < time.Minute {
		d = roundTo3(d)
	}
	if d >= time.Minute && d < time.Hour {
		d = d.Round(time.Second)
	}
	if d >= time.Hour && d < day {
		d = d.Round(time.Minute)
	}
	switch {
	case d < time.Microsecond:
		return append(strconv.AppendInt(dst, int64(d), 10), "ns"...)
	case d < time.Millisecond:
		return append(appendRatio(dst, d, time.Microsecond), "µs"...)
	case d < time.Second:
		return append(appendRatio(dst, d, time.Millisecond), "ms"...)
	case d < time.Minute:
		return append(appendRatio(dst, d, time.Second), 's')
	case d < time.Hour:
		return appendTwoUnits(dst, d, time.Minute, 'm', time.Second, 's')
	case d < day:
		return appendTwoUnits(dst, d, time.Hour, 'h', time.Minute, 'm')
	}
	return appendTwoUnits(dst, d, day, 'd', time.Hour, 'h')
}

const day = 24 * time.Hour

// roundTo3 rounds to three significant digits.
func roundTo3(d time.Duration) time.Duration {
	quantum := time.Duration(1)
	for d/quantum >= 1000 {
		quantum *= 10
	}
	return d.Round(quantum)
}

func appendRatio(dst []byte, d, unit time.Duration) []byte {
	return strconv.AppendFloat(dst, float64(d)/float64(unit), 'f', -1, 64)
}

func appendTwoUnits(dst []byte, d, large time.Duration, largeName byte, small time.Duration, smallName byte) []byte {
	dst = append(strconv.AppendInt(dst, int64(d/large), 10), largeName)
	return append(strconv.AppendInt(dst, int64(d%large/small), 10), smallName)
}

// appendSize writes a number of bytes for people, in at most five cells: 78B, 12.3K,
// 1.05M. K is 1024 bytes, as in ls -h.
func appendSize(dst []byte, n uint64) []byte {
	const units = "BKMGTPE"
	unit, v := 0, float64(n)
	for v >= 1023.5 && unit < len(units)-1 {
		unit, v = unit+1, v/1024
	}
	scale := 1.0
	switch {
	case unit == 0:
	case v < 9.995:
		scale = 100
	case v < 99.95:
		scale = 10
	}
	dst = strconv.AppendFloat(dst, math.Round(v*scale)/scale, 'f', -1, 64)
	return append(dst, units[unit])
}
