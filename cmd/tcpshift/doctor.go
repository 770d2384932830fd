package main

import (
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/doctor"
)

func newDoctor() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Check what this host supports, with a remedy for what is missing",
		Long: "Check what this host supports, with a remedy for what is missing.\n" +
			"The check loads and attaches the programs for real, and removes them again.",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			w := cmd.OutOrStdout()
			if isTerminal(unix.Stdout) && colorIsWanted() {
				w = verdictColors{w}
			}
			return doctor.Examine(w)
		},
	}
}
