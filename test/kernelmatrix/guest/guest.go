// Package guest is what the runner and a guest's process 1 say to each other:
// words on the kernel's command line one way, marked lines on the serial console
// the other way. It must not do anything itself.
package guest

import (
	"fmt"
	"strconv"
	"strings"
)

// TestBinary is where the initramfs has the tests.
const TestBinary = "/kernel.test"

// SetupFailed is the exit status where the tests could not be started.
const SetupFailed = 125

// endOfRun is the word between the words of one run and those of the next.
const endOfRun = "/"

// A Run is one run of the test binary.
type Run struct {
	Env       []string // NAME=value
	Arguments []string // of the test binary
}

// Words puts runs into words, none of which may have a space in it.
func Words(runs []Run) []string {
	var words []string
	for i, r := range runs {
		if i > 0 {
			words = append(words, endOfRun)
		}
		words = append(append(words, r.Env...), r.Arguments...)
	}
	return words
}

// Runs is the reverse of Words.
func Runs(words []string) []Run {
	runs := []Run{{}}
	for _, word := range words {
		r := &runs[len(runs)-1]
		switch {
		case word == endOfRun:
			runs = append(runs, Run{})
		case strings.HasPrefix(word, "-"):
			r.Arguments = append(r.Arguments, word)
		default:
			r.Env = append(r.Env, word)
		}
	}
	return runs
}

// What a guest says besides the tests' own output. A mark that no test writes by
// chance tells these lines from all others.
const mark = "\x1btcpshift-guest\x1b "

// Message is one marked line.
type Message struct {
	Kind  Kind
	Value string
}

// Kind is what a message is about.
type Kind string

// What a guest tells.
const (
	Booted  Kind = "booted" // the kernel's release
	Running Kind = "run"    // the run's environment
	Ended   Kind = "ended"  // the highest exit status of all runs
)

// Line is the message as a line, on a line of its own whatever came before.
func (m Message) Line() string {
	return fmt.Sprintf("\n%s%s %s\n", mark, m.Kind, m.Value)
}

// Parse finds a message in a line of the console, where other output may stand
// before it.
func Parse(line string) (m Message, ok bool) {
	_, rest, ok := strings.Cut(line, mark)
	if !ok {
		return Message{}, false
	}
	kind, value, _ := strings.Cut(strings.TrimRight(rest, "\r\n"), " ")
	return Message{Kind(kind), value}, true
}

// Status is the exit status in an Ended message.
func (m Message) Status() (int, error) {
	return strconv.Atoi(m.Value)
}
