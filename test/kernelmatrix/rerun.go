package main

import (
	"fmt"
	"regexp"
	"strings"
)

const (
	// onlyTestsFailed is the status of a test binary that has nothing else to report.
	onlyTestsFailed = 1
	// mostReruns bounds the failed tests of a column that are repeated: more are no accident.
	mostReruns = 3
)

// rerun repeats the failed tests of a column alone in a fresh guest. An emulated CPU may stand
// still for longer than a test foresees, or switch threads where no real one has been seen
// to. A test that passes now is unsteady: the column counts as passed, the report has its
// output and its name, and docs/kernels.md is not written. A test that fails again has
// failed.
func (g *guests) rerun(o *outcome, initramfs string) {
	var failed []*test
	var patterns []string
	for r, name := range o.failures() {
		failed = append(failed, r.tests[name])
		patterns = append(patterns, exactly(name))
	}
	if len(failed) == 0 || len(failed) > mostReruns || g.count > 1 {
		return
	}
	g.log(o.column, fmt.Sprintf("%d tests failed; running them again, alone", len(failed)))
	again := &outcome{column: o.column, kernel: o.kernel}
	only := *g
	only.pattern, only.logEnd = strings.Join(patterns, "|"), "-again"
	again.err = only.boot(again, initramfs)
	o.cpu += again.cpu
	if !again.ok() || again.counts().run != len(failed) {
		return
	}
	for _, t := range failed {
		t.passedAgain = true
	}
	o.unsteady = len(failed)
}

// exactly returns the pattern that matches only the test of this name.
func exactly(name string) string {
	parts := strings.Split(name, "/")
	for i, part := range parts {
		parts[i] = "^" + regexp.QuoteMeta(part) + "$"
	}
	return strings.Join(parts, "/")
}
