package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// report prints the failed tests with their output, and then the table.
func report(w io.Writer, outcomes []*outcome, took time.Duration, log func(column) string) {
	var cpu time.Duration
	for _, o := range outcomes {
		if !o.ok() || o.unsteady > 0 {
			reportFailure(w, o, log(o.column))
		}
		cpu += o.cpu
	}
	fmt.Fprintln(w)
	table(w, outcomes)
	listFailures(w, outcomes)
	fmt.Fprintf(w, "\n%d s in all, %d s of processor time in guests\n", int(took.Seconds()), int(cpu.Seconds()))
}

// listFailures prints the names of the failed tests once more, after the table, where a
// reader of the last lines sees them.
func listFailures(w io.Writer, outcomes []*outcome) {
	for _, o := range outcomes {
		if o.console == nil {
			continue
		}
		for r, name := range o.failures() {
			what := "failed"
			if r.tests[name].passedAgain {
				what = "failed, and then passed alone,"
			}
			fmt.Fprintf(w, "%s on %v: %s (%s)\n", what, o.column, name, r.env)
		}
	}
}

func table(w io.Writer, outcomes []*outcome) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "kernel\tarch\trelease\trun\tpassed\tleft out\tseconds\tresult\tinstructions\tfeatures")
	for _, o := range outcomes {
		var n counts
		release, features, walked := "-", "-", "-"
		if o.console != nil {
			n = o.counts()
			release = orElse(o.console.release, "-")
			features = orElse(o.console.attr("features"), "none")
			walked = orElse(mostInstructions(o.console), "not reported")
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%s\t%s\t%s\n", o.column.version, o.column.arch, release,
			n.run, n.passed, n.leftOut, int(o.took.Seconds()), verdict(o), walked, features)
	}
	t.Flush()
}

func verdict(o *outcome) string {
	result := "ok"
	switch {
	case o.err != nil:
		result = "no result"
	case !o.ok():
		result = "FAILED"
	case o.unsteady > 0:
		result = fmt.Sprintf("ok, %d unsteady", o.unsteady)
	}
	if o.retried {
		result += " at 2nd try"
	}
	return result
}

// mostInstructions returns the program for which the verifier processed the most
// instructions.
func mostInstructions(c *console) string {
	most, name := 0, ""
	for _, value := range c.attrs("instructions") {
		program, n, _ := strings.Cut(value, "=")
		if number(n) > most {
			most, name = number(n), program
		}
	}
	if name == "" {
		return ""
	}
	return fmt.Sprintf("%d (%s)", most, name)
}

// The most lines of output that a report shows: of one failed test, of all failed tests
// of a column, and of the console's end.
const (
	linesOfTest   = 40
	linesOfTests  = 400
	linesAtTheEnd = 100
)

func reportFailure(w io.Writer, o *outcome, log string) {
	fmt.Fprintf(w, "\n== %v %s", o.column, orElse(map[bool]string{true: "is unsteady"}[o.ok()], "failed"))
	if o.err != nil {
		fmt.Fprintf(w, ": %v", o.err)
	}
	fmt.Fprintln(w)
	if o.console == nil {
		return
	}
	fmt.Fprintln(w, "the whole console is in", log)
	shown := 0
	for _, r := range o.console.runs {
		for _, name := range r.order {
			t := r.tests[name]
			if t.result == "PASS" || (r.hasSubtests(name) && len(t.output) == 0) || shown > linesOfTests {
				continue
			}
			fmt.Fprintf(w, "-- %s %s (%s)\n", orElse(t.result, "no result:"), name, r.env)
			shown += printSome(w, t.output, linesOfTest)
		}
	}
	if o.err != nil || shown == 0 {
		fmt.Fprintln(w, "-- the console's end")
		lines := o.console.lines
		printSome(w, lines[max(0, len(lines)-linesAtTheEnd):], linesAtTheEnd)
	}
}

func printSome(w io.Writer, lines []string, most int) int {
	for i, line := range lines {
		if i == most {
			fmt.Fprintf(w, "... and %d lines more\n", len(lines)-most)
			return most
		}
		fmt.Fprintln(w, line)
	}
	return len(lines)
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
