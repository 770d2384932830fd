package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/tcpshift/tcpshift/internal/record"
)

// version comes from git describe; the Makefile sets it.
var version string

func buildVersion() string {
	if version == "" {
		return "devel"
	}
	return version
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of the program and of its record schema",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "tcpshift %s, schema %s, %s %s/%s\n",
				buildVersion(), record.SchemaVersion, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}
