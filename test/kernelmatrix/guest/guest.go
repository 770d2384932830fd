// Package guest is the protocol between the runner and process 1 of a guest: words on
// the kernel's command line in one direction, marked lines on the serial console in the
// other. It does nothing itself.
package guest

import (
	"fmt"
	"strconv"
	"strings"
)

// TestBinary is the path of the tests in the initramfs.
const TestBinary = "/kernel.test"

// SetupFailed is the exit status if the tests could not be started.
const SetupFailed = 125

// endOfRun separates the words of two runs.
const endOfRun = "/"

// Run is one run of the test binary.
type Run struct {
	Env       []string // NAME=value
	Arguments []string // of the test binary
}

// Words encodes runs as words. An argument must begin with "-", and a variable must not. Neither may contain a space.
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

// Runs decodes Words.
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

// mark begins each line of process 1. It distinguishes them from the output of tests
// and of the kernel.
const mark = "\x1btcpshift-guest\x1b "

// Message is one marked line.
type Message struct {
	Kind  Kind
	Value string
}

// Kind is the kind of a message.
type Kind string

// The kinds of messages.
const (
	Booted  Kind = "booted" // value: the kernel's release
	Running Kind = "run"    // value: the environment of the run
	Ended   Kind = "ended"  // value: the highest exit status of all runs
)

// Line formats the message on a line of its own.
func (m Message) Line() string {
	return fmt.Sprintf("\n%s%s %s\n", mark, m.Kind, m.Value)
}

// Parse finds a message in a line of the console. Other output may stand before it.
func Parse(line string) (m Message, ok bool) {
	_, rest, ok := strings.Cut(line, mark)
	if !ok {
		return Message{}, false
	}
	kind, value, _ := strings.Cut(strings.TrimRight(rest, "\r\n"), " ")
	return Message{Kind(kind), value}, true
}

// Status returns the exit status in an Ended message.
func (m Message) Status() (int, error) {
	return strconv.Atoi(m.Value)
}
