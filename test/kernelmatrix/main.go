// Command kernelmatrix runs the tests of ./test/kernel in guests: on every kernel and
// architecture of the table in package expect, emulated by QEMU, with kernels from
// Debian's packages. It installs and downloads what is missing, and writes into one
// cache directory only. It does not depend on what the tests show.
//
// With -deb it runs the tests of ./test/packages/guest instead, in one guest: a Debian with
// systemd, which -make-debian makes beforehand.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tcpshift/tcpshift/test/kernelmatrix/expect"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "kernelmatrix:", err)
		os.Exit(1)
	}
}

// settings are what the flags select.
type settings struct {
	columns  []column
	arches   []string // of the columns
	dir      string   // the cache
	parallel int      // guests at a time
	doc      string   // the page of the docs to write
	deb      string   // the package of the tests with systemd
	guests   guests

	makeDebian bool
}

func run() error {
	s, err := parseFlags()
	if err != nil {
		return err
	}
	for _, dir := range []string{"console", "apt"} {
		if err := os.MkdirAll(filepath.Join(s.dir, dir), 0o755); err != nil {
			return err
		}
	}
	if err := installQEMU(s.dir, s.arches); err != nil {
		return err
	}
	switch {
	case s.makeDebian:
		_, err := makeDebian(s.dir)
		return err
	case s.deb != "":
		return s.runDebian()
	}
	initramfs := map[string]string{}
	for _, arch := range s.arches {
		if initramfs[arch], err = buildInitramfs(s.dir, arch); err != nil {
			return err
		}
	}
	began := time.Now()
	outcomes := s.runAll(initramfs)
	if err := s.report(outcomes, time.Since(began)); err != nil {
		return err
	}
	if s.doc != "" {
		return writeDoc(s.doc, s.guests.pattern, outcomes, time.Now())
	}
	return nil
}

// report prints the outcomes. It returns an error if one of them is not good.
func (s *settings) report(outcomes []*outcome, took time.Duration) error {
	report(os.Stdout, outcomes, took, s.guests.logPath)
	if slices.ContainsFunc(outcomes, func(o *outcome) bool { return !o.ok() }) {
		return errors.New("FAILED")
	}
	return nil
}

func parseFlags() (*settings, error) {
	kernels := flag.String("kernels", "", "only these kernels, such as 6.12,7.1")
	arches := flag.String("arch", "", "only these architectures: amd64, arm64")
	short := flag.Bool("short", false, "only one kernel of each kind, on one architecture each")
	s := &settings{}
	flag.StringVar(&s.dir, "cache", ".cache", "where to keep kernels and consoles")
	flag.IntVar(&s.parallel, "parallel", runtime.NumCPU(), "how many guests run at once; each takes one core")
	flag.IntVar(&s.guests.cpus, "cpus", 2, "processors of a guest")
	flag.DurationVar(&s.guests.limit, "limit", 30*time.Minute, "how long a guest may take")
	flag.StringVar(&s.guests.pattern, "run", "", "only the tests that this pattern matches")
	flag.IntVar(&s.guests.count, "count", 1, "how often to run each test")
	env := flag.String("env", "", "more variables for the tests, such as 'TCPSHIFT_STORM_LOAD=2 TCPSHIFT_STORM_CONNECTIONS=5000'")
	flag.StringVar(&s.doc, "doc", "", "write the generated part of this document, if all tests passed")
	flag.StringVar(&s.deb, "deb", "", "run ./test/packages/guest with this package, in a Debian with systemd")
	flag.BoolVar(&s.makeDebian, "make-debian", false, "only make that Debian, for a later run with -deb")
	flag.BoolVar(&s.guests.verbose, "v", false, "print the consoles while the guests run")
	flag.Parse()
	s.guests.dir, s.guests.env = s.dir, strings.Fields(*env)
	versions, err := choose("kernel", *kernels, expect.KernelVersions)
	if err != nil {
		return nil, err
	}
	if s.arches, err = choose("architecture", *arches, expect.Arches); err != nil {
		return nil, err
	}
	if s.deb != "" || s.makeDebian {
		s.arches = []string{"amd64"}
	}
	if s.columns = columns(versions, s.arches, *short); len(s.columns) == 0 {
		return nil, errors.New("-short leaves out all of these kernels: omit it (SHORT=1)")
	}
	return s, nil
}

// columns returns the columns of these versions and architectures; with short, only those in the short form.
func columns(versions, arches []string, short bool) []column {
	var all []column
	for _, arch := range arches {
		for _, version := range versions {
			if row, _ := expect.For(version, arch); short && !row.InShortForm() {
				continue
			}
			all = append(all, column{version, arch})
		}
	}
	return all
}

// choose returns the words in some, in the order of all. If some is empty, it returns
// all.
func choose(what, some string, all []string) ([]string, error) {
	wanted := strings.FieldsFunc(some, func(r rune) bool { return r == ',' || r == ' ' })
	if len(wanted) == 0 {
		return all, nil
	}
	for _, w := range wanted {
		if !slices.Contains(all, w) {
			return nil, fmt.Errorf("no %s %q: there are %s", what, w, strings.Join(all, ", "))
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(a string) bool { return !slices.Contains(wanted, a) }), nil
}

// runAll runs s.parallel guests at once. It begins with the last columns, those of
// arm64, because they take longest.
func (s *settings) runAll(initramfs map[string]string) []*outcome {
	kernels := newCache(s.dir)
	outcomes := make([]*outcome, len(s.columns))
	next := make(chan *outcome)
	var parallel sync.WaitGroup
	for range s.parallel {
		parallel.Go(func() {
			for o := range next {
				s.runOne(kernels, o, initramfs[o.column.arch])
			}
		})
	}
	for i, c := range slices.Backward(s.columns) {
		outcomes[i] = &outcome{column: c}
		next <- outcomes[i]
	}
	close(next)
	parallel.Wait()
	return outcomes
}

// runOne fetches the kernel of a column and runs its tests.
func (s *settings) runOne(kernels *cache, o *outcome, initramfs string) {
	if o.kernel, o.err = kernels.kernel(o.column); o.err != nil {
		return
	}
	s.guests.run(o, initramfs)
	n := o.counts()
	s.guests.log(o.column, fmt.Sprintf("%d of %d passed in %d s", n.passed, n.run, int(o.took.Seconds())))
}
