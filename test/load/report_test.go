package load_test

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// report prints the table, and appends it to the file -doc if that is given. starts is in ms.
func report(t *testing.T, columns []*column, starts []float64) {
	t.Helper()
	appendReport(t, table(columns, starts))
}

// appendReport prints a text, and appends it to the file -doc if that is given.
func appendReport(t *testing.T, text string) {
	t.Helper()
	t.Log("\n" + text)
	if *doc == "" {
		return
	}
	f, err := os.OpenFile(*doc, os.O_WRONLY|os.O_APPEND, 0)
	if err == nil {
		_, err = f.WriteString("\n" + text)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Error(err)
	}
}

func table(columns []*column, starts []float64) string {
	bareKernel := 0.0
	for _, c := range columns {
		if c.name == bareHook {
			bareKernel = median(c.kernel)
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "### %s\n\n%s. %d pairs of storms of %d connections; medians, with the least and the most.\n\n",
		time.Now().UTC().Format("2006-01-02 15:04 UTC"), machine(), *rounds, *connections)
	b.WriteString("| traced by | connections a second | ÷ untraced | kernel, ns a transition | ÷ bare hook | own CPU, µs a transition | captured | RssAnon, MB |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|\n")
	for _, c := range columns {
		fmt.Fprintf(&b, "| %s | %s |", c.name, spread(c.rates, "%.0f", 1))
		if c.command == nil {
			b.WriteString(" 1 | | | | | |\n")
			continue
		}
		fmt.Fprintf(&b, " %s | %s | %.2f | %s |", spread(c.ratios, "%.2f", 1), spread(c.kernel, "%.0f", 1),
			median(c.kernel)/bareKernel, spread(c.own, "%.2f", 1e3))
		if c.subject.captured == nil {
			b.WriteString(" |")
		} else {
			fmt.Fprintf(&b, " %s |", spread(c.captured, "%.6f", 1))
		}
		fmt.Fprintf(&b, " %s |\n", spread(c.anonBytes, "%.1f", 1e6))
	}
	fmt.Fprintf(&b, "\nFrom exec to `start`: %s ms.\n", spread(starts, "%.0f", 1))
	return b.String()
}

// spread formats the median with minimum and maximum, each divided by unit.
func spread(values []float64, format string, unit float64) string {
	if len(values) == 1 {
		return fmt.Sprintf(format, values[0]/unit)
	}
	return fmt.Sprintf(format+" ("+format+"–"+format+")",
		median(values)/unit, slices.Min(values)/unit, slices.Max(values)/unit)
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// machine describes the host of the measurement.
func machine() string {
	model := "unknown processor"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, found := strings.CutPrefix(line, "model name"); found {
				model = strings.TrimSpace(strings.TrimLeft(name, " \t:"))
				break
			}
		}
	}
	release := "unknown"
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		release = unix.ByteSliceToString(u.Release[:])
	}
	return fmt.Sprintf("%d cores of %s, Linux %s, %s", runtime.NumCPU(), model, release, runtime.GOARCH)
}
