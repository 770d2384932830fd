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

func newAlerts(s *signals) *cobra.Command {
	o := traceOptions{only: []string{"alert"}, alertsOnly: true}
	cmd := &cobra.Command{
		Use:   "alerts",
		Short: "Write alerts only, at the lowest cost",
		Long: "Write alerts only, until stopped: about TIME_WAIT storms and other pile-ups of sockets.\n" +
			"The kernel reports only the transitions that detection needs.",
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			if err := o.check(); err != nil {
				return err
			}
			return runTrace(s, &o, nil)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	addFormatFlags(flags, &o.formatOptions)
	addOutputFlags(flags, &o.outputOptions)
	addDurationFlag(flags, &o)
	addSizeFlags(flags, &o)
	addLabelFlag(flags, &o.formatOptions)
	addExcludeSelfFlag(flags, &o)
	addOwnerAtReadFlag(flags, &o)
	addFilterFlags(flags, &o.filter, hostNames)
	addNameSelectionFlags(flags, &o.selection)
	addDetectionFlags(flags, &o.detection)
	addRecordingFlag(flags, &o)
	addRecorderFlags(flags, &o.recorder)
	addMetricsFlags(flags, &o.metrics)
	addSandboxFlag(flags, &o)
	return cmd
}

// addDetectionFlags adds the thresholds of detection. Few users need them: the
// default of --storm-threshold is a share of the host's limits, the others are fixed.
func addDetectionFlags(flags *pflag.FlagSet, c *detect.Config) {
	flags.Var(single(&c.Threshold, "PERCENT", parsePercent), "storm-threshold", "share of a capacity that opens an alert, if all of it will soon be in use (default 70)")
	flags.Var(single(&c.UpdateInterval, "D", parseInterval), "alert-interval", "time between two updates of an open alert, at least 10s (default 10s)")
	flags.Var(single(&c.CloseWaitAge, "D", parseInterval), "close-wait-age", "time in CLOSE_WAIT after which a socket counts as leaked, at least 10s (default 30s)")
	flags.Var(single(&c.CloseWaitCount, "N", parseLimit), "close-wait-count", "alert when a process, or a server, has leaked this many sockets (default 32)")
	flags.Var(single(&c.ConnectFailures, "N", parseLimit), "connect-failures", "alert when this many connects to one peer fail within 10s (default 50)")
	flags.Var(single(&c.Resets, "N", parseLimit), "resets", "alert when peers reset this many connections of one endpoint within 10s (default 100)")
	flags.Var(single(&c.HalfClosed, "N", parseLimit), "half-closed", "alert when this many closed connections wait for their peer to close (default 500)")
}

// parsePercent parses 20 to 99, with or without %, and returns the fraction.
func parsePercent(s string) (float64, error) {
	n, err := strconv.ParseUint(strings.TrimSuffix(s, "%"), 10, 8)
	if err != nil || n < 20 || n > 99 {
		return 0, fmt.Errorf("%q is not a percentage from 20 to 99: use one such as 70", s)
	}
	return float64(n) / 100, nil
}

// parseInterval parses a duration of at least 10 s.
func parseInterval(s string) (time.Duration, error) {
	d, err := parseDuration(s)
	if err == nil && d < 10*time.Second {
		return 0, fmt.Errorf("%q is too short: use 10s or more", s)
	}
	return d, err
}

// parseLimit parses a number from 1 on.
func parseLimit(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil || n == 0 {
		return 0, errors.New(strconv.Quote(s) + " is not a limit: use 1 or more")
	}
	return int(n), nil
}
