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

// beginMark and endMark enclose the generated part of docs/kernels.md. The text around
// them is written by hand.
const (
	beginMark = "<!-- Begin of the generated part: make test-kernels DOC=1 writes it from a run (test/kernelmatrix/doc.go). -->\n"
	endMark   = "<!-- End of the generated part. Everything else on this page is written by hand. -->\n"
)

// writeDoc replaces the generated part of the file at path with the results of a run. It
// fails if the run was not of all columns, if a test was unsteady, or if the file does not
// have both marks.
func writeDoc(path, pattern string, outcomes []*outcome, now time.Time) error {
	if want := len(expect.Table); len(outcomes) != want {
		return fmt.Errorf("write %s: it takes a run of all %d columns, this was one of %d", path, want, len(outcomes))
	}
	for _, o := range outcomes {
		if o.unsteady > 0 {
			return fmt.Errorf("write %s: %d tests were unsteady on %v", path, o.unsteady, o.column)
		}
	}
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, hasBegin := strings.Cut(string(old), beginMark)
	_, after, hasEnd := strings.Cut(rest, endMark)
	if !hasBegin || !hasEnd {
		return fmt.Errorf("write %s: it has no generated part: add the lines\n%s%s", path, beginMark, endMark)
	}
	var b strings.Builder
	b.WriteString(before + beginMark)
	if err := generated.Execute(&b, newDoc(pattern, outcomes, now)); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	b.WriteString(endMark + after)
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

// doc is the part of the page that comes from a run or from the table.
type doc struct {
	MaxInstructions int    // of a program, as the verifier processes it
	Pattern         string // selects the tests that ran; empty: all
	Date            string
	Kernels         []string
	Columns         []docColumn
	Features        []docRow
}

type docColumn struct {
	Kernel, Arch, Release, Package, Version, Instructions string
	Passed, LeftOut, Seconds                              int
}

// docRow is one feature for readers, and the kernels that provide it.
type docRow struct {
	What  string
	Cells []string // one for each kernel version
}

func newDoc(pattern string, outcomes []*outcome, now time.Time) doc {
	d := doc{MaxInstructions: expect.MaxInstructions, Pattern: pattern, Date: now.Format(time.DateOnly), Kernels: expect.KernelVersions}
	for _, o := range outcomes {
		d.Columns = append(d.Columns, docColumn{
			Kernel: o.column.version, Arch: o.column.arch, Release: o.console.release,
			Package: o.kernel.Package.Name, Version: o.kernel.Package.Version,
			Instructions: orElse(mostInstructions(o.console), "not reported"),
			Passed:       o.counts().passed, LeftOut: o.counts().leftOut, Seconds: int(o.took.Seconds()),
		})
	}
	slices.SortStableFunc(d.Columns, func(a, b docColumn) int {
		return slices.Index(expect.KernelVersions, a.Kernel) - slices.Index(expect.KernelVersions, b.Kernel)
	})
	always := func(*expect.Row) bool { return true }
	gives := func(feature string) func(*expect.Row) bool {
		return func(r *expect.Row) bool { return r.HasFeature(feature) }
	}
	for _, feature := range []struct {
		what string
		by   func(*expect.Row) bool
	}{
		{"every transition, with both addresses and ports", always},
		{"CLOSE distinguished from TIME_WAIT", always},
		{"the process, where the transition itself shows it", always},
		{"`conn`, the socket's cookie (`socket_cookie`)", gives(expect.SocketCookie)},
		{"role, durations and owner kept from one transition to the next (`socket_storage`)", gives(expect.SocketStorage)},
		{"owners of sockets older than the tracer (`socket_scan`)", gives(expect.SocketScan)},
		{"the process that accepts, at once (`accept_hook`)", gives(expect.AcceptHook)},
		{"that process at its first read (`read_hook`)", gives(expect.ReadHook)},
		{"the owner of an orphan whose process has exited", func(r *expect.Row) bool { return r.HasFeature(expect.SocketStorage) && !r.Lacks(expect.DeadOwners) }},
		{"a child's LISTEN → SYN_RECV with its peer", func(r *expect.Row) bool { return !r.EmptyChild || r.HasFeature(expect.SocketStorage) }},
		{"no transition lost under the heaviest load", always},
	} {
		d.Features = append(d.Features, newDocRow(feature.what, feature.by))
	}
	return d
}

// newDocRow makes cells of "yes", "–" or the name of the only architecture.
func newDocRow(what string, gives func(*expect.Row) bool) docRow {
	row := docRow{What: what}
	for _, version := range expect.KernelVersions {
		var on []string
		for _, arch := range expect.Arches {
			if r, ok := expect.For(version, arch); ok && gives(&r) {
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

var generated = template.Must(template.New("kernels.md").Parse(`
## Tested kernels

{{if .Pattern}}Those of the tests that match ` + "`{{.Pattern}}`" + `{{else}}These tests{{end}} ran on {{.Date}}, on emulated machines with Debian's kernel packages. All tests passed.

| kernel | architecture | package | tests passed | left out | seconds | instructions of the largest program |
|---|---|---|---|---|---|---|
{{range .Columns -}}
| {{.Kernel}} | {{.Arch}} | {{.Package}} {{.Version}} | {{.Passed}} | {{.LeftOut}} | {{.Seconds}} | {{.Instructions}} |
{{end}}
A test is left out only if the table in test/kernelmatrix/expect says that the kernel lacks what the
test needs. The instructions are those that the verifier walks, the most of all configurations that
the tests load. A test fails if there are more than {{.MaxInstructions}}.

## What each kernel provides

| |{{range .Kernels}} {{.}} |{{end}}
|---|{{range .Kernels}}---|{{end}}
{{range .Features -}}
| {{.What}} |{{range .Cells}} {{.}} |{{end}}
{{end}}
`))
