package peers_test

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// step is a transition as both tools show it.
type step struct {
	localPort, peerPort uint16
	old, new            string
}

// tcpstates (Debian's libbpf-tools) uses the same tracepoint. It may miss nested
// events, but shows no transition that tcpshift lacks.
func TestPeer_Tcpstates(t *testing.T) {
	peer := requireProgram(t, "tcpstates")
	tcplab.MountTracefs(t)
	n := tcplab.NewNetns(t)
	tracer := start(t, program) // of the whole host, as tcpstates is
	tracer.await(`"type":"start"`)
	states := start(t, requireProgram(t, "stdbuf"), "-oL", peer) // stdbuf: without it the first lines stay in a buffer
	states.await("OLDSTATE")
	tcplab.Storm(n, tcplab.StormConfig{Connections: 2_000})
	states.interrupt()
	tracer.interrupt()

	ours := map[step]int{}
	for _, r := range tracer.records() {
		if r.Type == "transition" {
			ours[step{r.LocalPort, r.PeerPort, r.Old, r.kernelNew()}]++
		}
	}
	theirs, count := parseTcpstates(t, states), 0
	for s, times := range theirs {
		if touches(s, 7000, 7001) {
			count += times
			if ours[s] < times {
				t.Errorf("tcpstates shows %+v %d times, tcpshift %d times", s, times, ours[s])
			}
		}
	}
	if count < 10_000 {
		t.Errorf("tcpstates showed %d transitions of 20,000: too few to compare with", count)
	}
}

func touches(s step, ports ...uint16) bool {
	for _, p := range ports {
		if s.localPort == p || s.peerPort == p {
			return true
		}
	}
	return false
}

// parseTcpstates parses SKADDR PID COMM LADDR LPORT RADDR RPORT OLDSTATE -> NEWSTATE MS
// from the right, because COMM may contain spaces.
func parseTcpstates(t *testing.T, r *running) map[step]int {
	t.Helper()
	b, err := os.ReadFile(r.stdout.Name())
	if err != nil {
		t.Fatal(err)
	}
	steps := map[step]int{}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 11 || f[len(f)-3] != "->" || f[0] == "SKADDR" {
			continue
		}
		f = f[len(f)-8:]
		local, err1 := strconv.ParseUint(f[1], 10, 16)
		remote, err2 := strconv.ParseUint(f[3], 10, 16)
		if err1 != nil || err2 != nil {
			t.Fatalf("unknown format of tcpstates: %q", line)
		}
		steps[step{uint16(local), uint16(remote), f[4], f[6]}]++
	}
	return steps
}
