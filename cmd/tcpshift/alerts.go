package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tcpshift/tcpshift/internal/detect"
)

func newAlerts() *cobra.Command {
	o := traceOptions{format: formatNDJSON, only: []string{"alert"}, output: "-"}
	cmd := &cobra.Command{
		Use:   "alerts",
		Short: "The same, alerts only, at the lowest cost",
		Long: "Stream alerts only, until stopped: TIME_WAIT storms and what else piles up. " +
			"The kernel is asked for no more than the transitions that they take.",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return runTrace(cmd.Context(), &o) },
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.Var(word(&o.format, "FORMAT", parseFormat), "format", "ndjson or text")
	flags.Var(word(&o.output, "PATH", parsePath), "output", "append to this file; - is standard output")
	flags.Var(word(&o.duration, "D", parseDuration), "duration", "stop after this long, such as 30s; 0 is until stopped")
	addSizeFlags(flags, &o)
	flags.Var(&labelsValue{labels: &o.labels}, "label", "add this member to every record; may be repeated")
	flags.BoolVar(&o.excludeSelf, "exclude-self", true, "leave out tcpshift's own connections")
	addFilterFlags(flags, &o.filter)
	addStormFlags(flags, &o.storm)
	return cmd
}

// addStormFlags are for those who must: the defaults follow what the host has room for.
func addStormFlags(flags *pflag.FlagSet, c *detect.Config) {
	flags.Var(word(&c.Threshold, "PERCENT", parsePercent), "storm-threshold", "alert when so much of a capacity is taken at the latest (default 70)")
	flags.Var(word(&c.UpdateInterval, "D", parseInterval), "alert-interval", "how often an alert that is open comes again, at least 10s (default 10s)")
	flags.Var(word(&c.CloseWaitAge, "D", parseInterval), "close-wait-age", "how long in CLOSE_WAIT is left there (default 30s)")
	flags.Var(word(&c.CloseWaitCount, "N", parseLimit), "close-wait-count", "how many of them are a leak (default 32)")
	flags.Var(word(&c.ConnectFailures, "N", parseLimit), "connect-failures", "failed connects to one peer in 10s that are too many (default 50)")
	flags.Var(word(&c.Resets, "N", parseLimit), "resets", "resets at one end in 10s that are too many (default 100)")
	flags.Var(word(&c.HalfClosed, "N", parseLimit), "half-closed", "closed connections whose peers do not close that are too many (default 500)")
}

func parsePercent(s string) (float64, error) {
	n, err := strconv.ParseUint(strings.TrimSuffix(s, "%"), 10, 8)
	if err != nil || n < 20 || n > 99 {
		return 0, fmt.Errorf("%q is no percentage that leaves room on both sides: use 20 to 99", s)
	}
	return float64(n) / 100, nil
}

func parseInterval(s string) (time.Duration, error) {
	d, err := parseDuration(s)
	if err == nil && d < 10*time.Second {
		return 0, fmt.Errorf("%q is too short: use 10s or more", s)
	}
	return d, err
}

func parseLimit(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil || n == 0 {
		return 0, errors.New(strconv.Quote(s) + " is no limit: use 1 or more")
	}
	return int(n), nil
}
