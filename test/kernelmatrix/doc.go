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

// writeDoc writes the page on kernels after a run of all columns without a failure.
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

// doc is the part of the page that comes from a run or from the table.
type doc struct {
	Most    int    // instructions
	Pattern string // of the tests that ran; empty means all
	Date    string
	Lines   []string
	Columns []docColumn
	Given   []docRow
}

type docColumn struct {
	Line, Arch, Release, Package, Version, Instructions string
	Passed, LeftOut, Seconds                            int
}

// docRow is one ability, and on which kernels there is it.
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
			Instructions: orElse(mostWalked(o.console), "not reported"),
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
		{"CLOSE distinguished from TIME_WAIT", always},
		{"the process, where the transition itself shows it", always},
		{"`conn`, the socket's identity (`socket_cookie`)", gives(expect.SocketCookie)},
		{"role, durations and owner remembered from transition to transition (`socket_storage`)", gives(expect.SocketStorage)},
		{"owners of sockets older than the tracer (`socket_scan`)", gives(expect.SocketScan)},
		{"the accepting process at once (`accept_hook`)", gives(expect.AcceptHook)},
		{"the owner of an orphan whose process has exited", func(r *expect.Row) bool { return r.Gives(expect.SocketStorage) && !r.Lacks(expect.DeadOwners) }},
		{"a child's LISTEN → SYN_RECV with its peer", func(r *expect.Row) bool { return !r.EmptyChild || r.Gives(expect.SocketStorage) }},
		{"no transition lost under the heaviest load", func(r *expect.Row) bool { return !r.PreemptsPrograms }},
	} {
		d.Given = append(d.Given, newDocRow(given.what, given.by))
	}
	return d
}

// newDocRow fills the cells with yes, with no, or with an architecture.
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
CAP_BPF and CAP_PERFMON. What a kernel does not provide is absent from records, never guessed: ` + "`tcpshift doctor`" + ` and
the start record list what is missing on a host.

{{if .Pattern}}The tests that match ` + "`{{.Pattern}}`" + `
ran on each of these kernels on {{.Date}}, and all of them passed{{else -}}
The same tests ran on each of these kernels on {{.Date}}, and all of them passed{{end}}. The machines are
emulated, the kernels are Debian's packages.

| kernel | architecture | package | tests passed | left out | seconds | instructions of the largest program |
|---|---|---|---|---|---|---|
{{range .Columns -}}
| {{.Line}} | {{.Arch}} | {{.Package}} {{.Version}} | {{.Passed}} | {{.LeftOut}} | {{.Seconds}} | {{.Instructions}} |
{{end}}
A test is left out only where the table in test/kernelmatrix/expect says that the kernel lacks what the test needs. The last
column is how many instructions the verifier processes, for the largest configuration that the tests load; more than {{.Most}} would fail.

` + "`make test-kernels`" + ` runs them, ` + "`make test-kernels KERNELS=6.12 ARCH=arm64`" + ` runs one column.

A deliberate mistake was tried on 2026-11-22: without the check for a field that only Linux 6.13 and later have
(` + "`f_ref` of `struct file`" + `), the six columns of 5.10, 6.1 and 6.12 failed, and the four of 6.18 and 7.1 passed.

## What each kernel provides

| |{{range .Lines}} {{.}} |{{end}}
|---|{{range .Lines}}---|{{end}}
{{range .Given -}}
| {{.What}} |{{range .Cells}} {{.}} |{{end}}
{{end}}
## What is missing

**5.10.** The tracer cannot keep state with a socket, so each transition stands alone. There is no ` + "`conn`" + `: distinguish
sockets by network namespace, addresses and ports. ` + "`role`" + ` is present only where the transition itself shows it (SYN_SENT,
LISTEN). ` + "`in_state_ns`" + ` and the durations of ` + "`connection`" + ` records are absent. The process is named only where it makes
the transition itself: connect, listen, close, shutdown, not at a segment from the peer. A child's
LISTEN → SYN_RECV has no peer yet; its next transition, SYN_RECV → ESTABLISHED, has one. Transitions, addresses, errors
and TIME_WAIT are as exact as on later kernels. All kernels before 5.15 behave like this.

**6.1, on both architectures.** Transitions of an orphan have no owner after its process has died: only since 6.2 can a
BPF program see whether another process has the pid of the dead one.

**6.1 on arm64**, and other kernels on which fexit programs cannot attach (lockdown, no function tracer). The owner of an
accepted connection is the process that listens (` + "`pid_source`" + ` is ` + "`listener`" + `), until the process that accepted it closes
it or shuts it down. Usually one process both listens and accepts; then nothing is missing.

**6.12 and before.** The kernel reports a child's LISTEN → SYN_RECV before it knows the peer. The event is deferred until
the child's next transition and emitted right before it, with the peer and the time at which it happened. On 6.18 and later
the kernel knows the peer at once.

**7.1.** The kernel may preempt a tracing program in favour of another task. In a storm of connections on few
processors an event may then find both of tcpshift's programs busy: some in ten thousand, on an emulated machine.
` + "`lost_reentry`" + ` counts each of them.

Where a kernel has the accept hook, the cases also run with a second tracer without it, so all of these kernels are also
tested as they are under lockdown.

The test that waits for the end of a TIME_WAIT, which takes a minute, runs on one kernel of each kind: 5.10, 6.12 and 7.1,
and 6.1 on arm64, which has no accept hook.

The processors of a guest take turns: they interrupt and preempt each other anywhere, but never run at the same
moment. Only ` + "`make test`" + `, on the machine itself, tests that.

The guests have no kernel modules. So the tests that need ` + "`ss`" + ` (its module is ` + "`tcp_diag`" + `) run on the host only. The tests
of MPTCP and of queues that migrate between listeners are left out on 5.10, which has neither.
`))
