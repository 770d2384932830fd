package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tcpshift/tcpshift/internal/explain"
)

const explainWidth = 80

func newExplain() *cobra.Command {
	return &cobra.Command{
		Use:   "explain [WORD]",
		Short: "Explain a TCP state or a kind of alert in plain words",
		Long:  "Explain a TCP state or a kind of alert in plain words: what it is, when it is normal, what to do when it piles up.\nWithout a word it lists what it can explain.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return listTopics(cmd.OutOrStdout())
			}
			word := strings.Join(args, " ")
			topic, found := explain.Lookup(word)
			if !found {
				return usagef("nothing is known of %q: 'tcpshift explain' lists what is", word)
			}
			_, err := io.WriteString(cmd.OutOrStdout(), explain.Text(topic, explainWidth))
			return err
		},
	}
}

func listTopics(w io.Writer) error {
	for _, t := range slices.Concat(explain.Topics(), explain.Alerts()) {
		if _, err := fmt.Fprintf(w, "%-18s%s\n", t.Name, t.Summary); err != nil {
			return err
		}
	}
	return nil
}
