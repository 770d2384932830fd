package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/test/kernelmatrix/expect"
	"github.com/tcpshift/tcpshift/test/kernelmatrix/guest"
)

func goodConsole(release, features string) *console {
	return consoleOf(consoleLine(guest.Booted, release) + consoleLine(guest.Running, "") + "=== RUN   TestOne\n=== ATTR  TestOne features " + features +
		"\n=== ATTR  TestOne instructions first=20\n--- PASS: TestOne (0.10s)\n" + consoleLine(guest.Ended, "0"))
}

// The report has a table and the output of failed tests.
func TestReport_TableAndFailures(t *testing.T) {
	outcomes := []*outcome{
		{column: column{"5.10", "amd64"}, console: goodConsole("5.10.0-32-cloud-amd64", ""), took: 12 * time.Second},
		{column: column{"6.1", "amd64"}, console: goodConsole("6.1.0-50-cloud-amd64", "socket_cookie"), retried: true},
		{column: column{"6.12", "amd64"}, console: consoleOf(wholeConsole), took: 3 * time.Second},
		unsteadyOutcome(),
		{column: column{"6.18", "arm64"}, console: consoleOf("[ 0.5] Kernel panic - not syncing\n"), err: errDied, retried: true},
		{column: column{"7.1", "arm64"}, err: errors.New("no package")},
	}
	var b strings.Builder
	report(&b, outcomes, 90*time.Second, func(c column) string { return c.version + ".log" })
	const want = `
== 6.12 amd64 failed
the whole console is in 6.12.log
-- FAIL TestAll/one (CI=true)
    a_test.go:7: one went wrong
-- SKIP TestTable (CI=true TCPSHIFT_WITHOUT=accept_hook)

== 6.18 amd64 is unsteady
the whole console is in 6.18.log
-- FAIL TestOne (CI=true)
    a_test.go:7: one went wrong

== 6.18 arm64 failed: the guest ended without a result
the whole console is in 6.18.log
-- the console's end
[ 0.5] Kernel panic - not syncing

== 7.1 arm64 failed: no package

kernel  arch   release                     run  passed  left out  seconds  result                instructions  features
5.10    amd64  5.10.0-32-cloud-amd64       1    1       0         12       ok                    20 (first)    none
6.1     amd64  6.1.0-50-cloud-amd64        1    1       0         0        ok at 2nd try         20 (first)    socket_cookie
6.12    amd64  6.12.107+deb13-cloud-amd64  4    2       0         3        FAILED                30 (second)   socket_storage,socket_cookie
6.18    amd64  6.18.15 1 1 0 0 ok, 1 unsteady not reported none
6.18    arm64  -                           0    0       0         0        no result at 2nd try  not reported      none
7.1     arm64  -                           0    0       0         0        no result             -             -
failed on 6.12 amd64: TestAll/one (CI=true)
failed on 6.12 amd64: TestTable (CI=true TCPSHIFT_WITHOUT=accept_hook)
failed, and then passed alone, on 6.18 amd64: TestOne (CI=true)

90 s in all, 0 s of processor time in guests
`
	if got := b.String(); squeeze(got) != squeeze(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func unsteadyOutcome() *outcome {
	o := &outcome{column: column{"6.18", "amd64"}, unsteady: 1, console: consoleOf(consoleLine(guest.Booted, "6.18.15") + consoleLine(guest.Running, "CI=true") +
		"=== RUN   TestOne\n    a_test.go:7: one went wrong\n--- FAIL: TestOne (0.10s)\n=== RUN   TestOne\n--- PASS: TestOne (0.10s)\n" + consoleLine(guest.Ended, "1"))}
	for r, name := range o.failures() {
		r.tests[name].passedAgain = true
	}
	return o
}

// squeeze removes the alignment of the table.
func squeeze(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return strings.Join(lines, "\n")
}

// The page is written only after a run of all columns.
func TestReport_DocumentNeedsEveryColumn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kernels.md")
	if err := os.WriteFile(path, []byte("by hand\n"+beginMark+"old\n"+endMark+"by hand too\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var outcomes []*outcome
	for _, c := range columns(expect.KernelVersions, expect.Arches, false) {
		if err := writeDoc(path, "", outcomes, time.Now()); err == nil {
			t.Errorf("the page was written after a run of %d columns", len(outcomes))
		}
		outcomes = append(outcomes, &outcome{column: c, console: goodConsole(c.String(), "")})
	}
	if err := writeDoc(path, "", outcomes, time.Date(2026, 5, 6, 0, 0, 0, 0, time.UTC)); err != nil {
		t.Fatal(err)
	}
	if err := writeDoc(path, "", append(outcomes[1:], unsteadyOutcome()), time.Now()); err == nil {
		t.Error("the page was written after a run with an unsteady test")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"by hand\n" + beginMark,
		endMark + "by hand too\n",
		"on 2026-05-06,",
		"| 6.1 | arm64 |",
		"| the process that accepts, at once (`accept_hook`) | – | amd64 | yes | yes | yes |",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}
