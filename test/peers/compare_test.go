package peers_test

import (
	"flag"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

var compareDoc = flag.String("doc", "", "the document that TestCompare writes; without it no other tool runs")

// namespace is a network namespace and the test that it belongs to.
type namespace struct {
	*tcplab.Netns
	t testing.TB
}

// In ten everyday cases tcpshift never names a process that does not have the socket, and
// names the right process at least once. With -doc, other tools run beside it, and the
// test writes a document with the output of each: make compare.
func TestCompare_OwnersInTenCases(t *testing.T) {
	tcplab.RequireRoot(t)
	var doc comparison
	for _, c := range compareCases {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t)
			if c.before != nil {
				c.before(s)
			}
			tools := startTools(t, s, *compareDoc != "")
			c.run(s)
			tools.settle(c.ends)
			after := ""
			if *compareDoc != "" {
				after = s.ss("-Htanp")
			}
			tools.stop()
			shown := tools.shown(s, after)
			doc.add(c, shown)
			if got := shown.named["tcpshift"]; got.wrong > 0 || got.right == 0 {
				t.Errorf("tcpshift: %d rows with the right process, %d with a wrong one, %d with none:\n%s",
					got.right, got.wrong, got.none, shown.output["tcpshift"])
			}
		})
	}
	if *compareDoc != "" && !t.Failed() {
		doc.write(t, *compareDoc)
	}
}

func newStage(t *testing.T) *stage {
	t.Helper()
	n := tcplab.NewNetns(t)
	n.Sysctl("net.ipv4.ip_local_port_range", clientPort+" "+clientPort)
	s := &stage{namespace: &namespace{n, t}, listener: "s"}
	s.client = startActor(t, n, "client")
	s.server = startActor(t, n, "server")
	s.child = s.server
	s.server.do("listen s 127.0.0.1:%d", serverPort)
	return s
}

// tools are the programs that run during one case.
type tools struct {
	t         *testing.T
	records   *running
	text      *running
	tcpstates *running
	tcplife   *running
	conntrack *running
}

func startTools(t *testing.T, s *stage, all bool) *tools {
	t.Helper()
	netns := strconv.FormatUint(uint64(s.Inode()), 10)
	tl := &tools{t: t, records: start(t, program, "--netns", netns)}
	tl.records.await(`"type":"start"`)
	if !all {
		return tl
	}
	tcplab.MountTracefs(t)
	tl.text = start(t, program, "--netns", netns, "--format", "text")
	tl.text.await("OLD")
	lines := requireProgram(t, "stdbuf") // without it their first lines stay in a buffer
	tl.tcpstates = start(t, lines, "-oL", requireProgram(t, "tcpstates"))
	tl.tcpstates.await("OLDSTATE")
	tl.tcplife = start(t, lines, "-oL", requireProgram(t, "tcplife"))
	tl.tcplife.await("RADDR")
	tl.conntrack = startConntrack(t, s)
	return tl
}

// startConntrack adds a rule to the namespace, without which the kernel tracks no
// connections there, and starts conntrack -E.
func startConntrack(t *testing.T, s *stage) *running {
	t.Helper()
	rules := `add table inet track
add chain inet track in { type filter hook input priority 0; }
add rule inet track in ct state new counter`
	nft := exec.Command(requireProgram(t, "nft"), "-f", "-")
	nft.Stdin = strings.NewReader(rules)
	var out []byte
	var err error
	s.Do(func() { out, err = nft.CombinedOutput() })
	if err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
	var r *running
	lines, conntrack := requireProgram(t, "stdbuf"), requireProgram(t, "conntrack")
	s.Do(func() { r = start(t, lines, "-oL", conntrack, "-E", "-p", "tcp") })
	time.Sleep(300 * time.Millisecond) // it prints nothing when it begins to listen
	return r
}

// settle waits for tcpshift's last record, and until the other tools have printed nothing
// for half a second: they do not show when they have printed everything.
func (tl *tools) settle(ends int) {
	tl.t.Helper()
	tl.records.awaitCount(`"type":"connection"`, ends)
	if tl.tcpstates == nil {
		return
	}
	for quiet, before := 0, int64(-1); quiet < 5; quiet++ {
		time.Sleep(100 * time.Millisecond)
		var now int64
		for _, r := range []*running{tl.text, tl.tcpstates, tl.tcplife, tl.conntrack} {
			if st, err := os.Stat(r.stdout.Name()); err == nil {
				now += st.Size()
			}
		}
		if now != before {
			quiet, before = 0, now
		}
	}
}

func (tl *tools) stop() {
	for _, r := range []*running{tl.records, tl.text, tl.tcpstates, tl.tcplife, tl.conntrack} {
		if r != nil {
			r.interrupt()
		}
	}
}
