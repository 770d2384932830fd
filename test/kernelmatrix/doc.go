package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/tcpshift/tcpshift/test/kernelmatrix/expect"
)

// writeDoc writes the document on kernels from a run of all columns that went well.
func writeDoc(path, pattern string, outcomes []*outcome, now time.Time) error {
	if want := len(expect.Table); len(outcomes) != want {
		return fmt.Errorf("write %s: it takes a run of all %d columns, this was one of %d", path, want, len(outcomes))
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := document.Execute(f, newDoc(pattern, outcomes, now)); err != nil {
		f.Close()
		return fmt.Errorf("write %s: %w", path, err)
	}
	return f.Close()
}

// doc is what the document says that comes from a run or the table.
type doc struct {
	Most    int    // instructions
	Pattern string // of the tests that ran; empty: all
	Date    string
	Lines   []string
	Columns []docColumn
	Given   []docRow
}

type docColumn struct {
	Line, Arch, Release, Package, Version, Instructions string
	Passed, LeftOut, Seconds                            int
}

// docRow is one thing, and on which lines it is to be had.
type docRow struct {
	What  string
	Cells []string // one for each line
}

func newDoc(pattern string, outcomes []*outcome, now time.Time) doc {
	d := doc{Most: expect.MaxInstructions, Pattern: pattern, Date: now.Format(time.DateOnly), Lines: expect.Lines}
	for _, o := range outcomes {
		d.Columns = append(d.Columns, docColumn{
			Line: o.column.line, Arch: o.column.arch, Release: o.console.release,
			Package: o.kernel.Package.Name, Version: o.kernel.Package.Version,
			Instructions: orElse(mostWalked(o.console), "the kernel does not tell"),
			Passed:       o.counts().passed, LeftOut: o.counts().leftOut, Seconds: int(o.took.Seconds()),
		})
	}
	slices.SortStableFunc(d.Columns, func(a, b docColumn) int {
		return slices.Index(expect.Lines, a.Line) - slices.Index(expect.Lines, b.Line)
	})
	always := func(*expect.Row) bool { return true }
	gives := func(feature string) func(*expect.Row) bool {
		return func(r *expect.Row) bool { return r.Gives(feature) }
	}
	for _, given := range []struct {
		what string
		by   func(*expect.Row) bool
	}{
		{"every transition, with both addresses and ports", always},
		{"CLOSE told from TIME_WAIT", always},
		{"the process, where the transition itself shows it", always},
		{"`conn`, the socket's identity (`socket_cookie`)", gives(expect.SocketCookie)},
		{"role, durations and owner remembered from transition to transition (`socket_storage`)", gives(expect.SocketStorage)},
		{"owners of sockets older than the tracer (`socket_scan`)", gives(expect.SocketScan)},
		{"the accepting process at once (`accept_hook`)", gives(expect.AcceptHook)},
		{"the owner of an orphan whose process is gone", func(r *expect.Row) bool { return r.Gives(expect.SocketStorage) && !r.Lacks(expect.DeadOwners) }},
		{"a child's LISTEN → SYN_RECV with its peer", func(r *expect.Row) bool { return !r.EmptyChild || r.Gives(expect.SocketStorage) }},
		{"no transition lost under the heaviest load", func(r *expect.Row) bool { return !r.PreemptsPrograms }},
	} {
		d.Given = append(d.Given, newDocRow(given.what, given.by))
	}
	return d
}

// newDocRow says yes, no, or on which architecture.
func newDocRow(what string, gives func(*expect.Row) bool) docRow {
	row := docRow{What: what}
	for _, line := range expect.Lines {
		var on []string
		for _, arch := range expect.Arches {
			if r, ok := expect.For(line, arch); ok && gives(&r) {
				on = append(on, arch)
			}
		}
		cell := strings.Join(on, ", ")
		switch len(on) {
		case 0:
			cell = "–"
		case len(expect.Arches):
			cell = "yes"
		}
		row.Cells = append(row.Cells, cell)
	}
	return row
}

var document = template.Must(template.New("kernels.md").Parse(`# Kernels

<!-- Written by make test-kernels DOC=1 from a run: change test/kernelmatrix/doc.go. -->

tcpshift runs on Linux 5.10 and later, on amd64 and arm64, with BTF (/sys/kernel/btf/vmlinux) and as root or with
CAP_BPF and CAP_PERFMON. What a kernel does not give is left out, never guessed: ` + "`tcpshift doctor`" + ` and the start
record say what that is on a host.

{{if .Pattern}}Of the tests those that match ` + "`{{.Pattern}}`" + `
ran on each of these kernels, on {{.Date}}, and all of them passed{{else -}}
The same tests ran on each of these kernels, on {{.Date}}, and all of them passed{{end}}: on emulated machines, with Debian's
kernel packages.

| kernel | architecture | package | tests passed | left out | seconds | instructions of the largest program |
|---|---|---|---|---|---|---|
{{range .Columns -}}
| {{.Line}} | {{.Arch}} | {{.Package}} {{.Version}} | {{.Passed}} | {{.LeftOut}} | {{.Seconds}} | {{.Instructions}} |
{{end}}
A test is left out only where the table in test/kernelmatrix/expect says that the kernel lacks what it needs. The instructions
are those that the verifier walks, of every configuration that the tests load; more than {{.Most}} would fail.

Run them yourself with ` + "`make test-kernels`" + `, or one of them with ` + "`make test-kernels KERNELS=6.12 ARCH=arm64`" + `.

That a mistake shows was tried on 2026-11-22: without the check for a field that only Linux 6.13 and later have
(` + "`f_ref` of `struct file`" + `), the six columns of 5.10, 6.1 and 6.12 failed, and the four of 6.18 and 7.1 did not.

## What you get on which kernel

| |{{range .Lines}} {{.}} |{{end}}
|---|{{range .Lines}}---|{{end}}
{{range .Given -}}
| {{.What}} |{{range .Cells}} {{.}} |{{end}}
{{end}}
## What is lost, in plain words

**5.10.** Nothing can be kept with a socket, so each transition stands for itself. There is no ` + "`conn`" + `: tell sockets
apart by network namespace, addresses and ports. ` + "`role`" + ` is there only where the transition itself shows it (SYN_SENT,
LISTEN), ` + "`in_state_ns`" + ` and the durations of ` + "`connection`" + ` records are absent, and the process is named only where it
does the transition itself: connect, listen, close, shutdown, not at a segment that comes from outside. A child's
LISTEN → SYN_RECV has no peer yet; its next transition, SYN_RECV → ESTABLISHED, has. Transitions, addresses, errors and
TIME_WAIT are as exact as elsewhere. Kernels before 5.15 are the same in this.

**6.1, on both.** What goes on with a socket that nobody has any more, after its process has died, has no owner: from 6.2 on
a program in the kernel can see whether another process has the dead one's number.

**6.1 on arm64**, and other kernels that do not let fexit programs attach (lockdown, no function tracer). An accepted
connection is its listener's (` + "`pid_source`" + ` is ` + "`listener`" + `) until the process that accepted it closes or shuts it
down. Where one process both listens and accepts, which is the rule, nothing is lost.

**6.12 and before.** The kernel reports a child's LISTEN → SYN_RECV before it knows the peer. It is held back until the
child's next transition and told right before that, with the peer and the time at which it happened. On 6.18 and later the
kernel knows the peer at once.

**7.1.** The kernel may preempt a tracing program in favour of another task. Under a storm of connections on few
processors an event may then find both of tcpshift's programs busy: some in ten thousand, on an emulated machine. None
goes unnoticed: ` + "`lost_reentry`" + ` counts each one.

Where a kernel has the accept hook, the cases also have a second tracer without it: what holds for locked-down hosts
is tested on all of these kernels.

That a TIME_WAIT left alone ends after a minute is waited for on one kernel of each kind: 5.10, 6.12 and 7.1, and 6.1 on
arm64, which has no accept hook.

A guest's processors take turns: they interrupt and preempt each other anywhere, but what two do at the very same moment is
tried by ` + "`make test`" + ` only, on the machine itself.

The guests have no kernel modules. So the tests that need ` + "`ss`" + ` (its module, ` + "`tcp_diag`" + `) run on the host only, and the
tests of MPTCP and of queues that migrate between listeners are left out on 5.10, which has no such thing.
`))
