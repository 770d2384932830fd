package main

import (
	"github.com/spf13/cobra"

	"github.com/tcpshift/tcpshift/internal/doctor"
)

func newDoctor() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Say what this host gives and what it does not, with the remedy for each",
		Long:  "Say what this host gives and what it does not, with the remedy for each. It loads and attaches for real.",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return doctor.Examine(cmd.OutOrStdout())
		},
	}
}
