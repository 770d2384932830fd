package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tcpshift/tcpshift/test/kernelmatrix/expect"
	"github.com/tcpshift/tcpshift/test/kernelmatrix/guest"
)

// outcome is the result of a column.
type outcome struct {
	column  column
	kernel  kernel
	console *console // nil if the guest was never booted
	took    time.Duration
	cpu     time.Duration // of QEMU
	retried bool
	// unsteady is the number of tests that failed, and then passed alone.
	unsteady int
	err      error // why there is no result
}

// ok reports whether every test ran and none failed.
func (o *outcome) ok() bool {
	if o.err != nil || o.console == nil || !o.console.ended || o.console.status != 0 && o.unsteady == 0 {
		return false
	}
	n := o.counts()
	return n.run > 0 && n.run == n.passed
}

func (o *outcome) counts() counts {
	if o.console == nil {
		return counts{}
	}
	row := o.column.row()
	return o.console.counts(row.Lacks)
}

// failures returns the tests that did not pass, with their runs.
func (o *outcome) failures() iter.Seq2[*testRun, string] {
	row := o.column.row()
	return o.console.failures(row.Lacks)
}

// guests boots the columns.
type guests struct {
	dir     string
	cpus    int
	limit   time.Duration // from the boot of a guest to its end
	pattern string        // of the tests to run; empty means all
	count   int           // how often each test runs
	env     []string      // NAME=value, after those that every run has
	verbose bool
	logEnd  string // of the names of console files
}

// stormConnections sets TCPSHIFT_STORM_CONNECTIONS, the size of storms; see
// harness.StormConnections.
const stormConnections = 400

// bootLimit bounds the time from QEMU's start to process 1, or to the tests in a Debian. A kernel
// takes 2 to 6 s on an idle machine, a Debian 25 s.
const (
	bootLimit       = 2 * time.Minute
	debianBootLimit = 20 * time.Minute
)

var (
	errDied    = errors.New("the guest ended without a result")
	errNoBoot  = errors.New("the guest did not boot in time")
	errTimeout = errors.New("the tests took too long")
)

// run boots a kernel and runs the tests. If a guest ends without a result,
// run boots it once more. It repeats a few failed tests, see rerun.
func (g *guests) run(o *outcome, initramfs string) {
	began := time.Now()
	defer func() { o.took = time.Since(began) }()
	o.err = g.boot(o, initramfs)
	if errors.Is(o.err, errDied) || errors.Is(o.err, errNoBoot) {
		g.log(o.column, fmt.Sprintf("%v; trying once more; %s", o.err, g.keepConsole(o.column)))
		o.retried = true
		o.err = g.boot(o, initramfs)
	}
	if o.err == nil && o.console.status == onlyTestsFailed {
		g.rerun(o, initramfs)
	}
}

// keepConsole renames the console of a guest that died, which may end with the reason.
func (g *guests) keepConsole(c column) string {
	path := g.logPath(c)
	kept := strings.TrimSuffix(path, ".log") + "-died.log"
	if err := os.Rename(path, kept); err != nil {
		return err.Error()
	}
	return "its console is in " + kept
}

func (g *guests) log(c column, text string) {
	fmt.Fprintf(os.Stderr, "%-10v  %s\n", c, text)
}

// runs returns the runs of the test binary. The test that only waits is a run of its
// own, at the same time as the other tests.
func (g *guests) runs() []guest.Run {
	// A storm is slow in an emulated guest; this size is enough for the programs to
	// interrupt each other. Garbage collection is slow too, and there is enough memory.
	env := []string{"CI=true", "GOGC=400", "TCPSHIFT_STORM_CONNECTIONS=" + strconv.Itoa(stormConnections)}
	env = append(env, g.env...)
	arguments := []string{"-test.v", "-test.timeout=" + g.limit.String(), "-test.count=" + strconv.Itoa(max(g.count, 1))}
	waiting := "^" + expect.OnlyWaits + "$"
	rest := append(slices.Clone(arguments), "-test.skip="+waiting)
	if g.pattern != "" {
		rest = append(rest, "-test.run="+g.pattern)
	}
	runs := []guest.Run{{Arguments: rest, Env: env}}
	if g.waits() {
		runs = append(runs, guest.Run{Arguments: append(arguments, "-test.run="+waiting), Env: env})
	}
	return runs
}

// waits reports whether the pattern selects the test that only waits. go test splits it at
// | and then at /.
func (g *guests) waits() bool {
	for alternative := range strings.SplitSeq(g.pattern, "|") {
		test, _, _ := strings.Cut(alternative, "/")
		if wanted, err := regexp.MatchString(test, expect.OnlyWaits); err != nil || wanted {
			return true
		}
	}
	return false
}

// boot starts a guest with the tests of the kernel and returns when it has ended.
func (g *guests) boot(o *outcome, initramfs string) error {
	m := machines[o.column.arch]
	return g.start(o, bootLimit, m.qemu, m.command(o.kernel, initramfs, g.cpus, guest.Words(g.runs())))
}

// start starts QEMU and returns when the guest has ended, by a reboot.
func (g *guests) start(o *outcome, bootLimit time.Duration, program string, arguments []string) error {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	stop := time.AfterFunc(g.limit, func() { cancel(errTimeout) })
	defer stop.Stop()
	boot := time.AfterFunc(bootLimit, func() { cancel(errNoBoot) })
	defer boot.Stop()

	qemu := exec.CommandContext(ctx, program, arguments...)
	var stderr strings.Builder
	qemu.Stderr = &stderr
	output, err := qemu.StdoutPipe()
	if err != nil {
		return err
	}
	if err := qemu.Start(); err != nil {
		return fmt.Errorf("start QEMU: %w", err)
	}
	o.console = &console{}
	readErr := g.read(o, output, func() { boot.Stop() })
	waitErr := qemu.Wait()
	o.cpu += qemu.ProcessState.UserTime() + qemu.ProcessState.SystemTime()
	switch {
	case context.Cause(ctx) != nil:
		return context.Cause(ctx)
	case readErr != nil:
		return readErr
	case waitErr != nil:
		return fmt.Errorf("QEMU: %w\n%s", waitErr, stderr.String())
	case !o.console.ended:
		return errDied
	}
	return nil
}

// read reads the lines of the console until QEMU ends.
func (g *guests) read(o *outcome, from io.Reader, booted func()) error {
	log, err := os.Create(g.logPath(o.column))
	if err != nil {
		return err
	}
	defer log.Close()
	const longest = 16 << 20
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, longest)
	for lines.Scan() {
		o.console.add(lines.Text())
		if o.console.release != "" {
			booted()
		}
		fmt.Fprintln(log, lines.Text())
		if g.verbose {
			g.log(o.column, strings.TrimRight(lines.Text(), "\r"))
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read the console: %w", err)
	}
	return nil
}

// logPath is the file with the whole console.
func (g *guests) logPath(c column) string {
	return filepath.Join(g.dir, "console", c.version+"-"+c.arch+g.logEnd+".log")
}
