package detection_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/test/attacker"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// chaos is how long TestHostile_Chaos lasts.
var chaos = flag.Duration("chaos", 20*time.Second, "how long random attacks last")

// chaosTracer is a tracer whose records and resources are watched.
type chaosTracer struct {
	t      *testing.T
	cmd    *exec.Cmd
	stderr bytes.Buffer
	done   chan struct{}

	mu     sync.Mutex
	alerts []alert
	last   string // line

	rss, files, threads []int // samples
}

func startChaosTracer(t *testing.T) *chaosTracer {
	t.Helper()
	tr := &chaosTracer{t: t, done: make(chan struct{})}
	tr.cmd = exec.Command(program, "--only", "alert,stats,loss", "--stats-interval", "1s", "--buffer-size", "1MiB")
	tr.cmd.Stderr = &tr.stderr
	out, err := tr.cmd.StdoutPipe()
	if err == nil {
		err = tr.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tr.cmd.Process.Kill() })
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatalf("no start record; %s", &tr.stderr)
	}
	go func() {
		defer close(tr.done)
		for lines.Scan() {
			var a alert
			_ = json.Unmarshal(lines.Bytes(), &a)
			tr.mu.Lock()
			if tr.last = lines.Text(); a.Type == "alert" {
				tr.alerts = append(tr.alerts, a)
			}
			tr.mu.Unlock()
		}
	}()
	return tr
}

// sample notes what the tracer uses now.
func (tr *chaosTracer) sample() {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tr.cmd.Process.Pid))
	if err != nil {
		tr.t.Fatalf("the tracer has ended: %v; %s", err, &tr.stderr)
	}
	number := func(key string) int {
		_, after, _ := strings.Cut(string(status), "\n"+key+":")
		n, err := strconv.Atoi(strings.Fields(after)[0])
		if err != nil {
			tr.t.Fatal(err)
		}
		return n
	}
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", tr.cmd.Process.Pid))
	if err != nil {
		tr.t.Fatal(err)
	}
	tr.rss, tr.threads, tr.files = append(tr.rss, number("VmRSS")), append(tr.threads, number("Threads")), append(tr.files, len(files))
}

func (tr *chaosTracer) stop() {
	tr.t.Helper()
	_ = tr.cmd.Process.Signal(syscall.SIGTERM)
	<-tr.done
	if err := tr.cmd.Wait(); err != nil {
		tr.t.Errorf("tcpshift: %v; %s", err, &tr.stderr)
	}
}

// mustBeFlat checks that the last third of the samples is no more than the second one and a bit.
func mustBeFlat(t *testing.T, what string, samples []int, more int) {
	t.Helper()
	third := len(samples) / 3
	if third == 0 {
		return
	}
	second, last := slices.Max(samples[third:2*third]), slices.Max(samples[2*third:])
	t.Logf("%s: %d, %d, %d at most in each third", what, slices.Max(samples[:third]), second, last)
	if last > second+more {
		t.Errorf("%s has grown from %d to %d", what, second, last)
	}
}

// attacks are those that chaos picks from.
var attacks = []attacker.Attack{
	{Connections: 1 << 20, Destinations: 1},
	{Connections: 1 << 20, Destinations: 1 << 20},
	{Connections: 1 << 20, Destinations: 1 << 20, Refused: true},
	{Connections: 300 * 100, Destinations: 300, InARow: 100, Refused: true},
	{Connections: 3000, Destinations: 30, Namespaces: 100},
	{Connections: 3000, Destinations: 30, Namespaces: 100, Refused: true},
	{Listeners: 1000},
	{HalfClosed: 1000},
	{Threads: 300},
	{SwapPath: "/dev/full", Connections: 100, Destinations: 1, Refused: true},
	{Name: "\x1b[2J\u202eab", Connections: 1000, Destinations: 1, Refused: true},
}

// Random attacks of one user beside a polite load and storms of another: at the end the accounts
// add up, memory, descriptors and threads are flat, every alert is closed and none is false.
func TestHostile_Chaos(t *testing.T) {
	tcplab.RequireRoot(t)
	tr := startChaosTracer(t)
	polite := newHostPair(t, nil, 20_000)
	polite.serve(80, afterPeer)
	inodes := &tracer{t: t}
	inodes.keepInodes(polite.client, polite.server)
	loaded := polite.run(workload{To: polite.port(80), Open: 200 * time.Millisecond, Phases: []phase{{PerSecond: 20, For: *chaos}}})
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	for end := time.Now().Add(*chaos); time.Now().Before(end); {
		var running []*attacker.Process
		for i := range 1 + random.IntN(3) {
			a := attacks[random.IntN(len(attacks))]
			a.Endless = true
			// One at a time in the namespace of the polite load: attacks listen on the same port.
			if i == 0 && random.IntN(2) == 0 && a.Namespaces == 0 && a.HalfClosed == 0 {
				running = append(running, attacker.StartIn(t, polite.client.Do, a))
			} else {
				running = append(running, attacker.Start(t, a))
			}
		}
		if random.IntN(4) == 0 {
			_ = tr.cmd.Process.Signal(syscall.SIGSTOP)
			time.Sleep(time.Duration(random.Int64N(int64(500 * time.Millisecond))))
			_ = tr.cmd.Process.Signal(syscall.SIGCONT)
		}
		time.Sleep(time.Duration(random.Int64N(int64(4 * time.Second))))
		for _, a := range running {
			a.Stop()
		}
		tr.sample()
	}
	<-loaded
	tr.stop()
	mustBeFlat(t, "KiB", tr.rss, 48<<10)
	mustBeFlat(t, "descriptors", tr.files, 4)
	mustBeFlat(t, "threads", tr.threads, 4)
	tr.checkAccounts()
	tr.checkAlerts(polite)
}

func (tr *chaosTracer) checkAccounts() {
	tr.t.Helper()
	var c struct {
		Type                                                            string
		Seen, Filtered, Deferred, Read, Dropped, Written, Fired, Missed uint64
		Entered                                                         uint64
		LostRingFull                                                    uint64 `json:"lost_ring_full"`
		LostRingBusy                                                    uint64 `json:"lost_ring_busy"`
		LostReentry                                                     uint64 `json:"lost_reentry"`
		LostQueue                                                       uint64 `json:"lost_queue_full"`
	}
	if err := json.Unmarshal([]byte(tr.last), &c); err != nil || c.Type != "stop" {
		tr.t.Fatalf("the last record is %s", tr.last)
	}
	if c.Seen != c.Filtered+c.LostRingFull+c.LostRingBusy+c.LostReentry+c.Deferred+c.Read ||
		c.Read != c.Written+c.Dropped+c.LostQueue || c.Fired != c.Entered+c.Missed {
		tr.t.Errorf("the counters do not add up: %s", tr.last)
	}
	tr.t.Logf("%d transitions, %d lost", c.Seen, c.LostRingFull+c.LostRingBusy+c.LostReentry)
}

// checkAlerts checks that every alert is closed once, and that none is about what did not happen:
// nobody makes TIME_WAITs but the polite load, which has too few, and its connects succeed.
func (tr *chaosTracer) checkAlerts(polite *hostPair) {
	tr.t.Helper()
	phases := make(map[string][]string)
	for i := range tr.alerts {
		a := &tr.alerts[i]
		phases[a.Alert] = append(phases[a.Alert], a.Phase)
		ip, err := netip.ParseAddr(a.PeerAddr)
		ofPolite := err == nil && (ip == polite.to || ip == polite.at)
		storm := a.Kind == "time_wait_storm" || a.Kind == "port_exhaustion"
		ours := a.Netns == polite.client.Inode() || a.Netns == polite.server.Inode()
		if (ofPolite || storm) && ours {
			tr.t.Errorf("a false alert: %+v", a)
		}
	}
	for id, list := range phases {
		if list[0] != "open" || list[len(list)-1] != "close" || slices.Contains(list[1:len(list)-1], "open") {
			tr.t.Errorf("alert %s has the phases %v", id, list)
		}
	}
	tr.t.Logf("%d alerts", len(phases))
}
