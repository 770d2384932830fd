package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/tcpshift/tcpshift/internal/report"
	"github.com/tcpshift/tcpshift/internal/safeopen"
)

// reportPermissions are the permissions of a new page, before the umask. Others may read it: a report is made to be shared.
const reportPermissions = 0o644

// maxRecordings bounds the files of a report, because all of them are open at the same time.
const maxRecordings = 500

func newReport() *cobra.Command {
	output := "report.html"
	cmd := &cobra.Command{
		Use:   "report FILE...",
		Short: "Make a page from recorded records",
		Long: "Make one page of HTML from recordings: files with NDJSON records of the native schema, plain or compressed with gzip.\n" +
			"FILE - is standard input. The page needs no network, and the command needs no privileges.",
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 0:
				return usagef("no recording: write '%s FILE...', or - for standard input", cmd.CommandPath())
			case len(args) > maxRecordings:
				return usagef("%d recordings: at most %d, or write them to standard input", len(args), maxRecordings)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return runReport(args, output, cmd.OutOrStdout()) },
	}
	cmd.Flags().VarP(single(&output, "PATH", parsePath), "output", "o", "write the page to this file, or replace it; - is standard output")
	return cmd
}

// runReport reads recordings and writes their page to output; - is stdout.
func runReport(paths []string, output string, stdout io.Writer) error {
	files, sources, err := openSources(paths)
	defer func() {
		for _, f := range files {
			_ = f.Close() // it was only read
		}
	}()
	if err != nil {
		return err
	}
	r, err := report.Read(sources)
	if err != nil {
		return err
	}
	if n := r.Unreadable(); n > 0 {
		warn(fmt.Sprintf("%d lines of the recordings are no records: the page shows the first ones", n))
	}
	if output == "-" {
		return r.WritePage(stdout)
	}
	err = safeopen.Replace(output, reportPermissions, r.WritePage)
	switch {
	case errors.Is(err, safeopen.ErrRefused):
		return fmt.Errorf("--output: %w: name another file", err)
	case err != nil:
		return fmt.Errorf("--output: %w", err)
	}
	return nil
}

// openSources opens recordings; - is standard input. The caller closes the files, also after an error.
func openSources(paths []string) (files []*os.File, sources []report.Source, err error) {
	for _, path := range paths {
		if path == "-" {
			sources = append(sources, report.Source{Name: "standard input", Reader: os.Stdin})
			continue
		}
		f, err := safeopen.Read(path)
		if err != nil {
			return files, nil, err
		}
		files = append(files, f)
		sources = append(sources, report.Source{Name: path, Reader: f})
	}
	return files, sources, nil
}
