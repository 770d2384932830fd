package load_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

var requests = flag.Int("requests", 4_000, "requests in each round of few connections")

// requestColumn is the measurements of one tracer.
type requestColumn struct {
	subject
	rates    []float64 // requests a second
	ratios   []float64 // rate divided by that of the untraced round before it
	readTime []float64 // ns a run of the program at reads; none without the program
}

// The cost of the program at reads (bpf/reader.h): many small requests over few
// connections, beside tcpshift with the program, beside tcpshift without it, and alone. It
// asserts only that the program runs exactly where it is wanted.
func TestCost_Reads(t *testing.T) {
	tcplab.RequireRoot(t)
	columns := []*requestColumn{
		{subject: subject{name: "tcpshift", command: []string{tcpshift}, ready: `"type":"start"`}},
		{subject: subject{name: "tcpshift --owner-at-read=false", command: []string{tcpshift, "--owner-at-read=false"}, ready: `"type":"start"`}},
	}
	untraced := &requestColumn{subject: subject{name: "nothing"}}
	for range *rounds {
		for _, c := range columns {
			alone, _, _ := measureRequests(t, untraced.subject, false)
			rate, _, _ := measureRequests(t, c.subject, false)
			untraced.rates, c.rates = append(untraced.rates, alone), append(c.rates, rate)
			c.ratios = append(c.ratios, rate/alone)
			if _, each, runs := measureRequests(t, c.subject, true); runs > 0 {
				c.readTime = append(c.readTime, each)
			}
		}
	}
	if len(columns[1].readTime) > 0 {
		t.Error("a program runs at reads with --owner-at-read=false")
	}
	reportRequests(t, append([]*requestColumn{untraced}, columns...))
}

// measureRequests returns the requests a second and, if timed, the mean time of the
// program at reads and how often it ran.
func measureRequests(t *testing.T, s subject, timed bool) (rate, each float64, runs uint64) {
	beside(t, s, timed, &run{}, func(n *tcplab.Netns, tr *tracer) {
		took := exchangeRequests(n, *requests)
		rate = float64(*requests) / took.Seconds()
		if timed && tr != nil {
			each, runs = tr.costOf("read_by")
			tr.requireReader(runs)
		}
	})
	return rate, each, runs
}

// costOf returns the mean time of a program in ns, and how often it ran.
func (tr *tracer) costOf(name string) (each float64, runs uint64) {
	tr.t.Helper()
	for _, p := range tr.programs {
		info, err := p.Info()
		if err != nil || info.Name != name {
			continue
		}
		stats, err := p.Stats()
		if err != nil {
			tr.t.Fatalf("read a program's statistics: %v", err)
		}
		if stats.RunCount > 0 {
			return float64(stats.Runtime.Nanoseconds()) / float64(stats.RunCount), stats.RunCount
		}
	}
	return 0, 0
}

// requireReader checks that the program at reads ran if it is on: each request is read
// once at the server and its answer once at the client.
func (tr *tracer) requireReader(runs uint64) {
	tr.t.Helper()
	b, err := os.ReadFile(tr.output.Name())
	if err != nil {
		tr.t.Fatal(err)
	}
	start, _, _ := strings.Cut(string(b), "\n")
	on := strings.Contains(start, `"read_hook":true`) && !strings.Contains(start, `"accept_hook":true`)
	if on && runs < uint64(2**requests) || !on && runs > 0 {
		tr.t.Errorf("the program at reads ran %d times for %d requests: %s", runs, *requests, start)
	}
}

// exchangeRequests sends requests of 64 bytes over four connections, waits for each
// answer, and returns the time that all of it took.
func exchangeRequests(n *tcplab.Netns, count int) time.Duration {
	const connections = 4
	listener := n.Listen(tcplab.V4.At(7000))
	var ends [2 * connections]*tcplab.Socket
	for i := range connections {
		ends[2*i] = n.Dial(tcplab.V4.At(7000))
		ends[2*i+1] = listener.Accept()
	}
	began := time.Now()
	n.Threads(len(ends), func(i int) error {
		share := (count + i/2) / connections // all shares add up to the total
		if i%2 == 0 {
			return ask(ends[i].FD, share)
		}
		return answer(ends[i].FD, share)
	})
	took := time.Since(began)
	for _, s := range ends {
		s.Close()
	}
	listener.Close()
	n.Settle(0)
	return took
}

func ask(fd, count int) error {
	var message [64]byte
	for range count {
		if _, err := unix.Write(fd, message[:]); err != nil {
			return fmt.Errorf("write a request: %w", err)
		}
		if err := readMessage(fd, message[:]); err != nil {
			return fmt.Errorf("read an answer: %w", err)
		}
	}
	return nil
}

func answer(fd, count int) error {
	var message [64]byte
	for range count {
		if err := readMessage(fd, message[:]); err != nil {
			return fmt.Errorf("read a request: %w", err)
		}
		if _, err := unix.Write(fd, message[:]); err != nil {
			return fmt.Errorf("write an answer: %w", err)
		}
	}
	return nil
}

// readMessage reads one message, which a peer writes as a whole.
func readMessage(fd int, message []byte) error {
	for {
		got, err := unix.Read(fd, message)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err == nil && got != len(message) {
			err = fmt.Errorf("%d of %d bytes", got, len(message))
		}
		return err
	}
}

func reportRequests(t *testing.T, columns []*requestColumn) {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "### Reads, %s\n\n%s. %d pairs of rounds of %d requests over four connections; medians, with the least and the most.\n\n",
		time.Now().UTC().Format("2006-01-02 15:04 UTC"), machine(), *rounds, *requests)
	b.WriteString("| traced by | requests a second | ÷ untraced | kernel, ns a read |\n|---|---|---|---|\n")
	for _, c := range columns {
		ratio, each := "1", ""
		if len(c.ratios) > 0 {
			ratio = spread(c.ratios, "%.3f", 1)
		}
		if len(c.readTime) > 0 {
			each = spread(c.readTime, "%.0f", 1)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", c.name, spread(c.rates, "%.0f", 1), ratio, each)
	}
	appendReport(t, b.String())
}
