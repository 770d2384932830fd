package cli_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// consumers are programs that read at an address, each into a file of its own.
type consumers struct {
	t       *testing.T
	address string
	dir     string
}

func newConsumers(t *testing.T) *consumers {
	t.Helper()
	l := listen(t, "tcp", "127.0.0.1:0")
	defer l.Close()
	return &consumers{t, l.Addr().String(), t.TempDir()}
}

func (c *consumers) file(i int) string { return filepath.Join(c.dir, fmt.Sprint(i)) }

func (c *consumers) start(i int) (kill func()) {
	c.t.Helper()
	cmd := exec.Command("/proc/self/exe", c.address, c.file(i))
	cmd.Env = append(os.Environ(), consumerEnv+"=1")
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	kill = sync.OnceFunc(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	c.t.Cleanup(kill)
	return kill
}

// awaitStop waits until a consumer has read the end of a stream.
func (c *consumers) awaitStop(i int) {
	c.t.Helper()
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		b, _ := os.ReadFile(c.file(i))
		if bytes.Contains(b, []byte(`{"type":"stop"`)) && bytes.HasSuffix(b, []byte("\n")) {
			return
		}
		if time.Since(began) > waitLimit {
			c.t.Fatalf("no stop in %d bytes within %v", len(b), waitLimit)
		}
	}
}

// newestSpooled is the file of a spool that gets new lines.
func newestSpooled(t *testing.T, spool string) string {
	t.Helper()
	for began := time.Now(); time.Since(began) < waitLimit; time.Sleep(10 * time.Millisecond) {
		if files, _ := filepath.Glob(filepath.Join(spool, "records", "*.lines")); len(files) > 0 {
			return files[len(files)-1]
		}
	}
	t.Fatalf("%s has no lines within %v", spool, waitLimit)
	return ""
}

// seqOf is the number of a whole record; 0: the line is cut.
func seqOf(t *testing.T, line string) (seq uint64) {
	t.Helper()
	if !strings.HasSuffix(line, "}\n") {
		return 0
	}
	_, rest, _ := strings.Cut(line, `"seq":`)
	if _, err := fmt.Sscanf(rest, "%d", &seq); err != nil || !strings.HasPrefix(line, `{"type":"`) {
		t.Fatalf("a line is not whole: %s", line)
	}
	return seq
}

// The reader is killed in a storm and so is tcpshift, with SIGKILL, in another one, while its reader is away.
// The next start sends what is in the spool and then its own stream. Nothing is missing that has entered the
// spool, and what comes twice is the same line. All of it also in the sandbox.
func TestSpool_AllKilled(t *testing.T) {
	for _, sandbox := range []string{"--sandbox=false", "--sandbox"} {
		t.Run(sandbox, func(t *testing.T) {
			c, spool := newConsumers(t), filepath.Join(t.TempDir(), "spool")
			n, args := stormNamespace(t, sandbox, "--stats-interval", "1ms", "--only", "stats,transition", "--spool", spool,
				"--output", "tcp://"+c.address+"?queue=64MiB&name=records")
			kill := c.start(0)
			tr := launch(t, args)
			awaitGrowth(t, c.file(0), 0)
			runStorm(t, n)
			kill()
			runStorm(t, n)
			newest := newestSpooled(t, spool)
			awaitCurrent(t, newest)
			tr.signal(syscall.SIGKILL)
			_ = tr.waitUnread()
			kept, err := os.ReadFile(newestSpooled(t, spool))
			if err != nil {
				t.Fatal(err)
			}
			whole := strings.SplitAfter(string(kept[:bytes.LastIndexByte(kept, '\n')+1]), "\n")
			last := seqOf(t, whole[len(whole)-2])
			tr = launch(t, args)
			c.start(1)
			awaitCurrent(t, c.file(1))
			tr.signal(syscall.SIGTERM)
			r := tr.waitUnread()
			r.mustEnd(t, 0)
			c.awaitStop(1)

			var lines []string
			for i := range 2 {
				b, err := os.ReadFile(c.file(i))
				if err != nil {
					t.Fatal(err)
				}
				lines = append(lines, strings.SplitAfter(string(b), "\n")...)
			}
			runs, twice := []map[uint64]string{}, 0
			for _, line := range lines {
				seq := seqOf(t, line)
				if seq == 0 {
					continue
				}
				if seq == 1 && (len(runs) == 0 || runs[len(runs)-1][1] != line) {
					runs = append(runs, make(map[uint64]string))
				}
				run := runs[len(runs)-1]
				if before, found := run[seq]; found {
					twice++
					if before != line {
						t.Errorf("number %d came with two lines: %s and %s", seq, before, line)
					}
				}
				run[seq] = line
			}
			if len(runs) != 2 {
				t.Fatalf("%d streams came, want 2\n%s", len(runs), r.stderr)
			}
			for seq := uint64(1); seq <= last; seq++ {
				if runs[0][seq] == "" {
					t.Fatalf("number %d of the killed run is missing, of %d", seq, last)
				}
			}
			for seq := uint64(1); seq <= uint64(len(runs[1])); seq++ {
				if runs[1][seq] == "" {
					t.Fatalf("number %d of the last run is missing", seq)
				}
			}
			if last < stormTransitions {
				t.Errorf("the killed run has %d records in the spool, want those of two storms", last)
			}
			t.Logf("%d and %d records, %d of them twice", last, len(runs[1]), twice)
		})
	}
}

// A full spool harms neither the run nor the other output. What it did not take is counted under its own
// cause, where it is missing, and all counts add up.
func TestSpool_Full(t *testing.T) {
	c, dir := newConsumers(t), t.TempDir()
	spool, healthy := filepath.Join(dir, "spool"), filepath.Join(dir, "healthy")
	n, args := stormNamespace(t, "--only", "stats,transition,loss", "--spool", spool, "--spool-size", "16MiB",
		"--output", "tcp://"+c.address+"?queue=64MiB&name=records", "--output", healthy+"?queue=64MiB")
	for i := range 4 {
		args = append(args, "--label", fmt.Sprintf("long%d=%s", i, strings.Repeat("x", 200)))
	}
	tr := launch(t, args)
	awaitGrowth(t, healthy, 0)
	runStorm(t, n)
	awaitGrowth(t, newestSpooled(t, spool), 0)
	c.start(0)
	awaitCurrent(t, c.file(0))
	tr.signal(syscall.SIGTERM)
	r := tr.waitUnread()
	r.mustEnd(t, 0)
	c.awaitStop(0)
	s := fileStream(t, c.file(0), r)
	s.checkLosses(t, n, stormTransitions)
	stop := s.last()
	if stop.LostQueue == 0 || !strings.Contains(stop.line, `"spooled_bytes":`) {
		t.Errorf("want losses and spooled_bytes: %s", stop.line)
	}
	for _, l := range s.of("loss") {
		if l.Cause == "queue_full" {
			t.Errorf("want the cause spool_full: %s", l.line)
		}
	}
	other := fileStream(t, healthy, r)
	if last := other.last(); last.LostQueue != 0 || last.Read != stop.Read || strings.Contains(last.line, "spooled_bytes") {
		t.Errorf("the other output has lost something: %s", last.line)
	}
	other.checkLosses(t, n, stormTransitions)
}

// Bad values get one line with the flag and the remedy, and leave nothing behind.
func TestSpool_Usage(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for name, each := range map[string]struct {
		args   []string
		status int
		want   string
	}{
		"no socket":   {[]string{"--spool", filepath.Join(dir, "a")}, 2, "--spool: no output goes to a socket"},
		"size alone":  {[]string{"--spool-size", "16MiB"}, 2, "--spool-size: there is no spool"},
		"small":       {[]string{"--spool", filepath.Join(dir, "a"), "--spool-size", "1MiB"}, 2, "use one such as 16MiB"},
		"one name":    {[]string{"--spool", filepath.Join(dir, "a"), "--output", "tcp://a.test:1", "--output", "tcp://b.test:1?name=tcp-a.test_1"}, 2, "have the same directory, tcp-a.test_1"},
		"link":        {[]string{"--spool", link, "--output", "tcp://127.0.0.1:1"}, 1, "is not a directory: name a directory that only you can change"},
		"none above":  {[]string{"--spool", filepath.Join(dir, "none", "a"), "--output", "tcp://127.0.0.1:1"}, 1, "no such file or directory"},
		"no argument": {[]string{"--spool", "", "--output", "tcp://127.0.0.1:1"}, 2, "the path is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			r := run(each.args)
			if r.status != each.status || !strings.Contains(r.stderr, each.want) || strings.Count(r.stderr, "\n") > 2 {
				t.Errorf("status %d, want %d; want %q in\n%s", r.status, each.status, each.want, r.stderr)
			}
		})
	}
	if _, err := os.Stat(filepath.Join(dir, "a")); !os.IsNotExist(err) {
		t.Errorf("a run that failed has left a directory: %v", err)
	}
}
