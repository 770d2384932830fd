package load_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"runtime"

	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// TestScale_OneRingManyCores writes records of tcpshift's size on one core, then on all
// cores at once, which share the lock of the ring.
func TestScale_OneRingManyCores(t *testing.T) {
	tcplab.RequireRoot(t)
	const recordBytes, most = 112, 64 << 20
	events, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.RingBuf, MaxEntries: most})
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()
	writer := load(t, asm.Instructions{
		asm.LoadMapPtr(asm.R1, events.FD()),
		asm.Mov.Imm(asm.R2, recordBytes),
		asm.Mov.Imm(asm.R3, 0),
		asm.FnRingbufReserve.Call(),
		asm.JEq.Imm(asm.R0, 0, "full"),
		asm.Mov.Reg(asm.R1, asm.R0),
		asm.Mov.Imm(asm.R2, 1), // BPF_RB_NO_WAKEUP
		asm.FnRingbufSubmit.Call(),
		asm.Mov.Imm(asm.R0, 0),
		asm.Return(),
		asm.Mov.Imm(asm.R0, 1).WithSymbol("full"),
		asm.Return(),
	})
	idle := load(t, asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()})
	// No reader frees space: all records must fit.
	times := min(*records, most/(recordBytes+8)/(*rounds*3))
	cpus := onlineCPUs(t)
	var alone, together []float64
	for range *rounds {
		nothing := benchmark(t, idle, cpus[:1], times)
		alone = append(alone, benchmark(t, writer, cpus[:1], times)-nothing)
		together = append(together, benchmark(t, writer, cpus[:2], times/2)-nothing)
	}
	t.Logf("\n%s. A record of %d bytes reserved and submitted: %s ns on one core, %s ns on each of two at once.",
		machine(), recordBytes, spread(alone, "%.0f", 1), spread(together, "%.0f", 1))
}

func load(t *testing.T, code asm.Instructions) *ebpf.Program {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL", Instructions: code})
	if err != nil {
		t.Fatalf("load a program: %+v", err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// benchmark runs a program repeatedly on each of the CPUs at once, and returns the
// nanoseconds of one run.
func benchmark(t *testing.T, p *ebpf.Program, cpus []int, times int) float64 {
	t.Helper()
	type result struct {
		took time.Duration
		err  error
	}
	results := make(chan result)
	for _, cpu := range cpus {
		go func() {
			var r result
			r.err = onCPU(cpu, func() (err error) {
				_, r.took, err = p.Benchmark(make([]byte, 64), times, nil)
				return err
			})
			results <- r
		}()
	}
	longest := 0.0
	for range cpus {
		r := <-results
		if r.err != nil {
			t.Fatalf("run a program: %v", r.err)
		}
		longest = math.Max(longest, float64(r.took.Nanoseconds()))
	}
	return longest
}

// TestScale_LiveSockets starts tcpshift beside many open connections.
func TestScale_LiveSockets(t *testing.T) {
	tcplab.RequireRoot(t)
	n := tcplab.NewNetns(t)
	none := startTime(t)
	open(t, n, *sockets/2)
	before := slab(t)
	cmd := exec.Command(tcpshift)
	began := time.Now()
	await(t, cmd)
	took := time.Since(began)
	each := float64(slab(t)-before) / float64(*sockets)
	t.Logf("\n%s. With %d open sockets: %d ms from exec to start, %d ms with next to none; %.0f bytes of the kernel's memory for each socket.",
		machine(), *sockets, took.Milliseconds(), none.Milliseconds(), each)
	_ = cmd.Process.Signal(unix.SIGINT)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// startTime returns the time from exec to the start record of tcpshift.
func startTime(t *testing.T) time.Duration {
	t.Helper()
	cmd := exec.Command(tcpshift, "--duration", "1ms")
	began := time.Now()
	first := await(t, cmd)
	took := time.Since(began)
	if !strings.Contains(first, `"type":"start"`) {
		t.Errorf("the first line is not a start record: %q", first)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	return took
}

// await starts a program and returns its first line as soon as it comes.
func await(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	output, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(output)
	first, err := lines.ReadString('\n')
	if err != nil {
		t.Fatalf("no first line: %v", err)
	}
	go func() { _, _ = io.Copy(io.Discard, lines) }()
	return first
}

// keeperEnv turns this test binary into a process that makes this number of connections
// to itself, and keeps both ends open until its standard input ends.
const keeperEnv = "TCPSHIFT_TEST_KEEP_OPEN"

// mostKept bounds the connections of one process. It has two descriptors for each, and
// may be limited to 20,000; a namespace has 28,232 ephemeral ports.
const mostKept = 9_000

func keepOpen(text string) error {
	connections, err := strconv.Atoi(text)
	if err != nil {
		return err
	}
	// Without keepalive: the probes of a million sockets, every 15 s from each, are more than a host
	// answers in time, and most connections would end with ETIMEDOUT.
	listen, dial := net.ListenConfig{KeepAlive: -1}, net.Dialer{KeepAlive: -1}
	listener, err := listen.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	open := []io.Closer{listener}
	for range connections {
		client, err := dial.Dial("tcp4", listener.Addr().String())
		if err != nil {
			return err
		}
		child, err := listener.Accept()
		if err != nil {
			return err
		}
		open = append(open, client, child)
	}
	fmt.Println("open")
	_, err = io.Copy(io.Discard, os.Stdin)
	runtime.KeepAlive(open)
	return err
}

// open starts processes that make connections, which stay open until the test ends.
func open(t *testing.T, n *tcplab.Netns, connections int) {
	t.Helper()
	for ; connections > 0; connections -= mostKept {
		n.Do(func() { startKeeper(t, keeperEnv+"="+strconv.Itoa(min(connections, mostKept))) })
	}
}

// startKeeper turns this test binary into a process that makes what setting says, in the namespace
// of the calling thread, and waits until it is there. The process ends with the test.
func startKeeper(t *testing.T, setting string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), setting)
	cmd.Stderr = os.Stderr
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	await(t, cmd)
	t.Cleanup(func() {
		input.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the process of %s: %v", setting, err)
		}
	})
}

// slab returns the memory of the kernel's own objects in bytes.
func slab(t *testing.T) int64 {
	t.Helper()
	time.Sleep(200 * time.Millisecond) // some is freed later
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, found := strings.CutPrefix(line, "SUnreclaim:"); found {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatal("no SUnreclaim in /proc/meminfo")
	return 0
}

func onlineCPUs(t *testing.T) (cpus []int) {
	t.Helper()
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		t.Fatal(err)
	}
	for cpu := range 1024 {
		if set.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	if len(cpus) < 2 {
		t.Skip("needs two CPUs")
	}
	return cpus
}

// onCPU runs f on a new thread bound to one CPU.
func onCPU(cpu int, f func() error) error {
	done := make(chan error)
	go func() {
		// Never unlocked, so that the thread ends with the goroutine.
		runtime.LockOSThread()
		var set unix.CPUSet
		set.Set(cpu)
		err := unix.SchedSetaffinity(0, &set)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}
