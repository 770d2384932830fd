package peers_test

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// rows counts a tool's rows about the case by the process that they name.
type rows struct{ right, wrong, none int }

func (r rows) String() string {
	if r.right+r.wrong+r.none == 0 {
		return "no row"
	}
	return fmt.Sprintf("%d, %d, %d", r.right, r.wrong, r.none)
}

// shown is the output of the tools about one case, and whom their rows name.
type shown struct {
	output map[string]string
	named  map[string]rows
}

// shown reads the output of the tools that have ended.
func (tl *tools) shown(s *stage, after string) shown {
	tl.t.Helper()
	owners := s.owners()
	sh := shown{output: map[string]string{}, named: map[string]rows{}}
	var own rows
	for _, r := range tl.records.records() {
		sh.output["tcpshift"] += r.raw + "\n"
		if r.Type == "transition" {
			own.count(owners(r.LocalPort), r.PID)
		}
	}
	sh.named["tcpshift"] = own
	if tl.tcpstates == nil {
		return sh
	}
	clean := s.cleaner()
	keep := func(r *running, about *regexp.Regexp) (text string) {
		for line := range strings.Lines(r.output()) {
			if about.MatchString(line) {
				text += clean(line)
			}
		}
		return text
	}
	// tcpstates and tcplife see the whole host: they have no filter on namespaces. Other
	// processes may use the server's port, so a row has the client's port, or none yet.
	ours := regexp.MustCompile(fmt.Sprintf(`LADDR|\b%s\b| 0 +127\.0\.0\.1 +%d\b`, clientPort, serverPort))
	sh.output["tcpstates"] = keep(tl.tcpstates, ours)
	sh.output["tcplife"] = keep(tl.tcplife, ours)
	sh.output["conntrack -E"] = keep(tl.conntrack, regexp.MustCompile(`\[`))
	sh.output["ss, afterwards"] = clean(after)
	// At its start tcpshift counts the sockets of all namespaces for alerts.
	sh.output["tcpshift"] = keep(tl.text, regexp.MustCompile(fmt.Sprintf(`^[^#!]|^!.* netns %d\b`, s.Inode())))
	sh.named["tcpstates"] = countRows(tl.t, tl.tcpstates.output(), ours, owners, 1, 4)
	sh.named["tcplife"] = countRows(tl.t, tl.tcplife.output(), ours, owners, 0, 3)
	return sh
}

// count counts a row that names a process.
func (r *rows) count(owners []int, named int) {
	switch {
	case named == 0:
		r.none++
	case slices.Contains(owners, named):
		r.right++
	default:
		r.wrong++
	}
}

// owners returns a function from a local port to the processes that have its socket. A
// socket without a port is the client's. The listener of a prefork server has two
// processes.
func (s *stage) owners() func(port uint16) []int {
	return func(port uint16) []int {
		if port == serverPort {
			return []int{s.server.pid, s.child.pid}
		}
		return []int{s.client.pid}
	}
}

// countRows counts the rows of a tool that has the process and the local port in these
// columns.
func countRows(t *testing.T, text string, about *regexp.Regexp, owners func(uint16) []int, pidAt, portAt int) (found rows) {
	t.Helper()
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if !about.MatchString(line) || strings.Contains(line, "LADDR") || len(f) <= portAt {
			continue
		}
		pid, err1 := strconv.Atoi(f[pidAt])
		port, err2 := strconv.ParseUint(f[portAt], 10, 16)
		if err1 != nil || err2 != nil {
			t.Fatalf("the columns have changed: %q", line)
		}
		found.count(owners(uint16(port)), pid)
	}
	return found
}

// output returns what the program has printed so far.
func (r *running) output() string {
	r.t.Helper()
	b, err := os.ReadFile(r.stdout.Name())
	if err != nil {
		r.t.Fatal(err)
	}
	return string(b)
}

// cleaner replaces what differs from run to run, in the width that it had: processes,
// the namespace, kernel addresses, the time of day.
func (s *stage) cleaner() func(string) string {
	var pairs []string
	for i, a := range []*actor{s.client, s.server, s.child} {
		from, to := strconv.Itoa(a.pid), strconv.Itoa(1001+i)
		if a == s.server {
			to = "1002"
		}
		pad := strings.Repeat(" ", max(0, len(from)-len(to)))
		pairs = append(pairs, from+" ", to+pad+" ", "pid="+from, "pid="+to, "pid "+from, "pid "+to)
	}
	pairs = append(pairs, strconv.FormatUint(uint64(s.Inode()), 10), "4026532000")
	named := strings.NewReplacer(pairs...)
	clock := regexp.MustCompile(`\b\d\d:\d\d:\d\d\.\d+`)
	ss := regexp.MustCompile(`\b\d+( +)ss `) // the administrator's, in tcpstates and tcplife
	address := regexp.MustCompile(`\bffff[0-9a-f]{12}\b`)
	sockets := map[string]string{}
	return func(text string) string {
		text = clock.ReplaceAllString(named.Replace(text), "12:00:00.000000")
		text = ss.ReplaceAllStringFunc(text, func(at string) string { return fmt.Sprintf("%-*s", len(at)-3, "1004") + "ss " })
		return address.ReplaceAllStringFunc(text, func(at string) string {
			if sockets[at] == "" {
				sockets[at] = fmt.Sprintf("ffff8880000000%02x", len(sockets)+1)
			}
			return sockets[at]
		})
	}
}

// toolOrder is the order of the tools in the document.
var toolOrder = []string{"tcpshift", "tcpstates", "tcplife", "conntrack -E", "ss, afterwards"}

// comparison collects the parts of the document.
type comparison struct{ summary, cases, gadget strings.Builder }

func (d *comparison) add(c compareCase, sh shown) {
	fmt.Fprintf(&d.summary, "| %s | %v | %v | %v |\n", c.name, sh.named["tcpshift"], sh.named["tcpstates"], sh.named["tcplife"])
	fmt.Fprintf(&d.gadget, "| %s | %s |\n", c.name, c.gadget)
	fmt.Fprintf(&d.cases, "## %s\n\n%s\n\n```\n", c.name, c.about)
	for _, tool := range toolOrder {
		text := strings.TrimRight(sh.output[tool], "\n")
		if text == "" {
			text = "(nothing)"
		}
		fmt.Fprintf(&d.cases, "--- %s\n%s\n", tool, trimLines(text))
	}
	d.cases.WriteString("```\n\n")
}

func trimLines(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}

func (d *comparison) write(t *testing.T, path string) {
	t.Helper()
	text := strings.NewReplacer(
		"{versions}", versions(t), "{summary}", d.summary.String(), "{cases}", d.cases.String(),
		"{gadget}", d.gadget.String(), "{failed}", failures(t),
	).Replace(comparisonText)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// versions is the kernel and the packages that ran.
func versions(t *testing.T) string {
	t.Helper()
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	text := "Linux " + strings.TrimSpace(string(kernel))
	for _, name := range []string{"libbpf-tools", "conntrack", "iproute2", "bpftrace"} {
		version, err := exec.Command("dpkg-query", "-W", "-f", "${Version}", name).Output()
		if err != nil {
			version = []byte("of unknown version")
		}
		text += fmt.Sprintf(";\n%s %s", name, version)
	}
	return text
}

// failures runs the tools that need kprobes, and returns a table of their last lines.
func failures(t *testing.T) (text string) {
	t.Helper()
	for _, name := range []string{"tcplife.bt", "tcpaccept.bt", "tcpconnect"} {
		outcome := "it runs on this machine"
		out, err := exec.Command("timeout", "-s", "INT", "3", requireProgram(t, name)).CombinedOutput()
		if lines := strings.Split(strings.TrimSpace(string(out)), "\n"); err != nil && len(out) > 0 {
			outcome = "`" + lines[len(lines)-1] + "`"
		}
		text += "| `" + name + "` | " + outcome + " |\n"
	}
	return text
}
