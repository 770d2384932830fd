package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/tcpshift/tcpshift/test/kernelmatrix/guest"
)

func consoleLine(kind guest.Kind, value string) string {
	return guest.Message{Kind: kind, Value: value}.Line()
}

// consoleOf parses a console as a serial line delivers it.
func consoleOf(text string) *console {
	c := &console{}
	for line := range strings.Lines(strings.ReplaceAll(text, "\n", "\r\n")) {
		c.add(line)
	}
	return c
}

// A message of the kernel, two runs, parallel subtests, output after a result.
var wholeConsole = "[    0.1] ACPI: a word of the firmware's\n" + consoleLine(guest.Booted, "6.12.107+deb13-cloud-amd64") +
	consoleLine(guest.Running, "CI=true") + `=== RUN   TestTable
    expect_test.go:1: no accept_hook
=== ATTR  TestTable features socket_storage,socket_cookie
=== ATTR  TestTable instructions first=20
=== ATTR  TestTable instructions second=30
--- PASS: TestTable (0.10s)
=== RUN   TestAll
=== RUN   TestAll/one
=== PAUSE TestAll/one
=== RUN   TestAll/two
=== CONT  TestAll/one
    a_test.go:7: one went wrong
=== NAME  TestAll/two
    a_test.go:8: two did not
--- FAIL: TestAll (0.30s)
    --- FAIL: TestAll/one (0.20s)
    --- PASS: TestAll/two (0.10s)
FAIL
` + consoleLine(guest.Running, "CI=true TCPSHIFT_WITHOUT=accept_hook") + `=== RUN   TestTable
=== ATTR  TestTable features socket_storage
--- SKIP: TestTable (0.00s)
PASS
` + consoleLine(guest.Ended, "1") + "[    9.0] reboot: Restarting system\n"

func lacksNothing(string) bool { return false }

// A skipped test counts as left out only if the table lists that the kernel lacks what
// it names.
func TestConsole_SkipNeedsTableEntry(t *testing.T) {
	skip := func(attr string) string {
		return consoleLine(guest.Running, "") + "=== RUN   TestOne\n" + attr + "--- SKIP: TestOne (0.00s)\n"
	}
	for _, tt := range []struct {
		name, output string
		want         counts
	}{
		{"listed", skip("=== ATTR  TestOne lacks mptcp\n"), counts{leftOut: 1}},
		{"not listed", skip("=== ATTR  TestOne lacks accept_hook\n"), counts{run: 1}},
		{"without a reason", skip(""), counts{run: 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := consoleOf(tt.output).counts(func(what string) bool { return what == "mptcp" }); got != tt.want {
				t.Errorf("counts %+v, want %+v", got, tt.want)
			}
		})
	}
}

// A console gives release, results, attributes, output of failed tests and exit status.
func TestConsole_Parse(t *testing.T) {
	c := consoleOf(wholeConsole)
	if c.release != "6.12.107+deb13-cloud-amd64" || !c.ended || c.status != 1 {
		t.Errorf("release %q, ended %v with %d", c.release, c.ended, c.status)
	}
	if got, want := c.counts(lacksNothing), (counts{run: 4, passed: 2}); got != want {
		t.Errorf("counts %+v, want %+v", got, want)
	}
	if got := c.attr("features"); got != "socket_storage,socket_cookie" {
		t.Errorf("features %q", got)
	}
	if got := c.attrs("instructions"); !slices.Equal(got, []string{"first=20", "second=30"}) {
		t.Errorf("instructions %q", got)
	}
	if got := mostInstructions(c); got != "30 (second)" {
		t.Errorf("most instructions %q", got)
	}
	first := c.runs[0]
	if got := first.tests["TestAll/one"].output; !slices.Equal(got, []string{"    a_test.go:7: one went wrong"}) {
		t.Errorf("output of the test that failed: %q", got)
	}
	if len(c.runs) != 2 || c.runs[1].env != "CI=true TCPSHIFT_WITHOUT=accept_hook" {
		t.Errorf("runs: %d, the last with %q", len(c.runs), c.runs[len(c.runs)-1].env)
	}
}

// A test without a result counts as run and not passed.
func TestConsole_TestWithoutResult(t *testing.T) {
	died := "=== RUN   TestOne\n--- PASS: TestOne (0.10s)\n=== RUN   TestTwo\npanic: no\n"
	c := consoleOf(consoleLine(guest.Booted, "6.1") + consoleLine(guest.Running, "") + died)
	if got, want := c.counts(lacksNothing), (counts{run: 2, passed: 1}); got != want || c.ended {
		t.Errorf("counts %+v, want %+v; ended %v", got, want, c.ended)
	}
}

// An outcome is good only if every test ran and passed.
func TestConsole_OutcomeIsGood(t *testing.T) {
	good := consoleLine(guest.Booted, "6.1") + consoleLine(guest.Running, "") + "=== RUN   TestOne\n--- PASS: TestOne (0.10s)\n"
	for _, tt := range []struct {
		name string
		o    outcome
		want bool
	}{
		{"all passed", outcome{console: consoleOf(good + consoleLine(guest.Ended, "0"))}, true},
		{"never booted", outcome{}, false},
		{"no kernel", outcome{err: errDied}, false},
		{"no result", outcome{console: consoleOf(good)}, false},
		{"no time", outcome{console: consoleOf(good + consoleLine(guest.Ended, "0")), err: errTimeout}, false},
		{"another exit status", outcome{console: consoleOf(good + consoleLine(guest.Ended, "2"))}, false},
		{"no test", outcome{console: consoleOf(consoleLine(guest.Booted, "6.1") + consoleLine(guest.Running, "") + consoleLine(guest.Ended, "0"))}, false},
		{"skipped", outcome{console: consoleOf(good + "=== RUN   TestTwo\n--- SKIP: TestTwo (0.00s)\n" + consoleLine(guest.Ended, "0"))}, false},
		{"failed", outcome{console: consoleOf(wholeConsole)}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.o.ok(); got != tt.want {
				t.Errorf("ok is %v", got)
			}
		})
	}
}
