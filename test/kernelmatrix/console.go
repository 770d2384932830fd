package main

import (
	"iter"
	"regexp"
	"strconv"
	"strings"

	"github.com/tcpshift/tcpshift/test/kernelmatrix/guest"
)

// console is the output of a guest so far, parsed line by line.
type console struct {
	lines   []string
	release string
	ended   bool
	status  int
	runs    []*testRun
}

// testRun is one run of the test binary.
type testRun struct {
	env     string
	current string // the test whose output follows
	tests   map[string]*test
	order   []string
	other   []string // output outside tests
}

type test struct {
	result      string // PASS, FAIL, SKIP; "" while it runs; FAIL if one of several runs failed
	passedAgain bool   // the test failed, and then passed alone
	output      []string
	attrs       [][2]string // key and value, in the order in which the test set them
}

var (
	resultLine = regexp.MustCompile(`--- (PASS|FAIL|SKIP): (\S+) \([\d.]+s\)$`)
	switchLine = regexp.MustCompile(`^=== (RUN|NAME|CONT|PAUSE) +(\S+)$`)
	attrLine   = regexp.MustCompile(`^=== ATTR +(\S+) (\S+) (.*)$`)
)

// add parses the next line.
func (c *console) add(line string) {
	line = strings.TrimRight(line, "\r\n")
	c.lines = append(c.lines, line)
	if m, ok := guest.Parse(line); ok {
		c.message(m)
		return
	}
	if len(c.runs) > 0 && !c.ended {
		c.runs[len(c.runs)-1].add(line)
	}
}

// message takes in a message of process 1.
func (c *console) message(m guest.Message) {
	switch m.Kind {
	case guest.Booted:
		c.release = m.Value
	case guest.Running:
		c.runs = append(c.runs, &testRun{env: m.Value, tests: map[string]*test{}})
	case guest.Ended:
		status, err := strconv.Atoi(m.Value)
		c.ended, c.status = err == nil, status
	}
}

// add parses a line of a test binary with -test.v.
func (r *testRun) add(line string) {
	if m := switchLine.FindStringSubmatch(line); m != nil {
		r.current = m[2]
		r.test(r.current)
		return
	}
	if m := attrLine.FindStringSubmatch(line); m != nil {
		t := r.test(m[1])
		t.attrs = append(t.attrs, [2]string{m[2], m[3]})
		return
	}
	if m := resultLine.FindStringSubmatch(line); m != nil {
		if t := r.test(m[2]); t.result != "FAIL" {
			t.result = m[1]
		}
		r.current = ""
		return
	}
	if t, ok := r.tests[r.current]; ok {
		t.output = append(t.output, line)
		return
	}
	r.other = append(r.other, line)
}

func (r *testRun) test(name string) *test {
	t, ok := r.tests[name]
	if !ok {
		t = &test{}
		r.tests[name] = t
		r.order = append(r.order, name)
	}
	return t
}

func (t *test) attr(key string) string {
	for _, a := range t.attrs {
		if a[0] == key {
			return a[1]
		}
	}
	return ""
}

// counts counts tests without subtests, because the others only sum up theirs. A test
// without a result has run and not passed. A test counts as left out only if it names
// what is lacking and mayLack allows that.
type counts struct {
	run, passed, leftOut int
}

// isLeftOut reports whether the test was skipped for what its kernel is known to lack.
func (t *test) isLeftOut(mayLack func(what string) bool) bool {
	return t.result == "SKIP" && mayLack(t.attr("lacks"))
}

func (c *console) counts(mayLack func(what string) bool) counts {
	var sum counts
	for _, r := range c.runs {
		for name, t := range r.tests {
			switch {
			case r.hasSubtests(name):
			case t.isLeftOut(mayLack):
				sum.leftOut++
			case t.result == "PASS" || t.passedAgain:
				sum.run++
				sum.passed++
			default:
				sum.run++
			}
		}
	}
	return sum
}

// failures returns the runs and the names of the tests without subtests that did not pass.
func (c *console) failures(mayLack func(what string) bool) iter.Seq2[*testRun, string] {
	return func(yield func(*testRun, string) bool) {
		for _, r := range c.runs {
			for _, name := range r.order {
				t := r.tests[name]
				if t.result == "PASS" || t.isLeftOut(mayLack) || r.hasSubtests(name) {
					continue
				}
				if !yield(r, name) {
					return
				}
			}
		}
	}
}

func (r *testRun) hasSubtests(name string) bool {
	for other := range r.tests {
		if strings.HasPrefix(other, name+"/") {
			return true
		}
	}
	return false
}

// attr returns the first value that a test of the first run gave to a key, or "".
func (c *console) attr(key string) string {
	values := c.attrs(key)
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// attrs returns all values that tests of the first run gave to a key. In that run no feature is
// switched off.
func (c *console) attrs(key string) []string {
	var values []string
	if len(c.runs) == 0 {
		return nil
	}
	r := c.runs[0]
	for _, name := range r.order {
		for _, a := range r.tests[name].attrs {
			if a[0] == key {
				values = append(values, a[1])
			}
		}
	}
	return values
}
