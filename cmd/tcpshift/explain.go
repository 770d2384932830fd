package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/explain"
)

// explainWidth is the widest that explanations get: longer lines are hard to read.
const explainWidth = 80

func newExplain() *cobra.Command {
	return &cobra.Command{
		Use:   "explain [WORD]",
		Short: "Explain a TCP state or a kind of alert",
		Long: "Explain a TCP state or a kind of alert: what it is, when it is normal, what to do when it piles up.\n" +
			"Without a word, list all topics.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return listTopics(cmd.OutOrStdout())
			}
			word := strings.Join(args, " ")
			topic, found := explain.Lookup(word)
			if !found {
				return usagef("no topic %q: 'tcpshift explain' lists all topics", word)
			}
			width := explainWidth
			if isTerminal(unix.Stdout) {
				columns, _ := terminalSize(unix.Stdout)
				width = min(width, columns)
			}
			_, err := io.WriteString(cmd.OutOrStdout(), explain.Text(topic, width))
			return err
		},
	}
}

func listTopics(w io.Writer) error {
	for _, t := range slices.Concat(explain.States(), explain.Alerts()) {
		if _, err := fmt.Fprintf(w, "%-18s%s\n", t.Name, t.Summary); err != nil {
			return err
		}
	}
	return nil
}
