package cli_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// configuration is a file that a test changes while a tracer runs.
type configuration struct {
	t    testing.TB
	path string
}

func newConfiguration(t testing.TB, lines ...string) configuration {
	c := configuration{t, filepath.Join(t.TempDir(), "tcpshift.yaml")}
	c.write(lines...)
	return c
}

// write replaces the file in one step, as an editor does.
func (c configuration) write(lines ...string) {
	c.t.Helper()
	next := c.path + ".next"
	err := os.WriteFile(next, []byte(strings.Join(lines, "\n")+"\n"), 0o644)
	if err == nil {
		err = os.Rename(next, c.path)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// withStderrFile sends standard error to a file, which can be read while the program runs.
func withStderrFile(t testing.TB) (adjust func(*exec.Cmd), awaitLine func(part string)) {
	f, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return func(cmd *exec.Cmd) { cmd.Stderr = f }, func(part string) {
		t.Helper()
		for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
			text, err := os.ReadFile(f.Name())
			if err == nil && bytes.Contains(text, []byte(part)) {
				return
			}
			if time.Since(began) > waitLimit {
				t.Fatalf("standard error has no %q within %v:\n%s", part, waitLimit, text)
			}
		}
	}
}

// connectOnce makes a connection over loopback and closes it.
func connectOnce(t testing.TB) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// SIGHUP changes a running trace: the stream goes on behind a reload record. A wrong file, and a change that needs
// a restart, change nothing, and a message has the place.
func TestReload_StreamGoesOn(t *testing.T) {
	requireRoot(t)
	for _, sandbox := range []string{"false", "true"} {
		t.Run("sandbox "+sandbox, func(t *testing.T) {
			base := "sandbox: " + sandbox
			c := newConfiguration(t, base, "only: [connection]", "stats-interval: 0")
			stderr, awaitLine := withStderrFile(t)
			tr := startTracer(t, []string{"--config", c.path}, stderr)
			isReload := func(line string) bool { return strings.HasPrefix(line, `{"type":"reload",`) }
			isConnection := func(line string) bool { return strings.HasPrefix(line, `{"type":"connection",`) }

			connectOnce(t)
			tr.await("connection", isConnection)

			c.write(base, "only: [connection]", "stats-interval: 0", "closed-by: [no_port]", "resets: 5")
			tr.signal(syscall.SIGHUP)
			awaitLine("reload: changed closed-by, resets")
			tr.await("reload", isReload)

			connectOnce(t) // none of them ends so
			c.write(base, "only: [sockets]")
			tr.signal(syscall.SIGHUP)
			awaitLine("reload: " + c.path + `:2:8: only: "sockets" is not a record type`)
			c.write(base, "only: [connection]", "stats-interval: 0", "count: 1000000")
			tr.signal(syscall.SIGHUP)
			awaitLine("reload: count: needs a restart: the configuration in use stays")
			if sandbox == "true" {
				c.write(base, "only: [connection]", "stats-interval: 0", "port: 1")
				tr.signal(syscall.SIGHUP)
				awaitLine("reload: closed-by, resets, port: the filters of the kernel programs need a restart, " +
					"because the sandbox does not permit loading programs: the configuration in use stays")
			}

			c.write(base, "only: [connection]", "stats-interval: 0")
			tr.signal(syscall.SIGHUP)
			tr.await("reload", func(line string) bool {
				if isConnection(line) && !strings.Contains(line, `"closed_by":"no_port"`) {
					t.Errorf("the new selection does not hold: %s", line)
				}
				return isReload(line)
			})
			connectOnce(t)
			tr.await("connection", isConnection)
			tr.signal(syscall.SIGTERM)
			r := tr.wait()
			r.mustEnd(t, 0)
			parseStream(t, r)
		})
	}
}

// A reload opens and closes files; each of them has a whole stream.
func TestReload_Files(t *testing.T) {
	requireRoot(t)
	dir := t.TempDir()
	stays, goes, comes := filepath.Join(dir, "stays"), filepath.Join(dir, "goes"), filepath.Join(dir, "comes")
	c := newConfiguration(t, "port: 1", "outputs:", "- target: "+stays, "  rotate-size: 1GiB", "- "+goes)
	stderr, awaitLine := withStderrFile(t)
	tr := launch(t, []string{"--config", c.path}, stderr)
	awaitFile := func(path, part string) {
		t.Helper()
		for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
			text, err := os.ReadFile(path)
			if err == nil && bytes.Contains(text, []byte(part)) {
				return
			}
			if time.Since(began) > waitLimit {
				tr.fatalf("%s has no %s within %v:\n%s", path, part, waitLimit, text)
			}
		}
	}
	awaitFile(stays, `{"type":"start"`)
	c.write("port: 1", "outputs:", "- target: "+stays, "  rotate-size: 64KiB", "  only: [stats]", "- "+comes, "stats-interval: 1ms")
	tr.signal(syscall.SIGHUP)
	awaitLine("reload: changed outputs, stats-interval")
	awaitFile(goes, `"reason":"reload"`)
	awaitFile(comes, `{"type":"start"`)
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if old, _ := filepath.Glob(stays + ".*"); len(old) > 0 {
			break
		}
		if time.Since(began) > waitLimit {
			tr.fatalf("the file is not rotated by the new limit within %v", waitLimit)
		}
	}
	c.write("port: 1", "outputs:", "- target: "+stays, "  rotate-size: 64KiB", "  format: text")
	tr.signal(syscall.SIGHUP)
	awaitLine("only the types, keys and limits of rotation of an output can change: the rest needs a restart: the configuration in use stays")
	tr.signal(syscall.SIGTERM)
	tr.wait().mustEnd(t, 0)
	awaitFile(stays, `"reason":"signal"`)
	awaitFile(comes, `"reason":"signal"`)
}

// An output that has failed does not prevent a reload, also where it cannot begin again. It stays as it is then.
func TestReload_FailedOutput(t *testing.T) {
	requireRoot(t)
	for name, lines := range map[string][]string{
		"begins again": nil, "sandbox": {"sandbox: true"}, "metrics": {"metrics-listen: " + freeAddress(t)},
	} {
		t.Run(name, func(t *testing.T) {
			stays := filepath.Join(t.TempDir(), "stays")
			lines = append(lines, "port: 1", "stats-interval: 10ms", "outputs: ["+stays+", /dev/full]")
			c := newConfiguration(t, lines...)
			stderr, awaitLine := withStderrFile(t)
			tr := launch(t, []string{"--config", c.path}, stderr)
			awaitLine("/dev/full: write /dev/full: no space left on device: this output gets no more records")
			c.write(append(lines, "resets: 5")...)
			tr.signal(syscall.SIGHUP)
			awaitLine("reload: changed resets")
			tr.signal(syscall.SIGTERM)
			tr.wait().mustEnd(t, 1) // for the output that has failed
			text, err := os.ReadFile(stays)
			if err != nil || bytes.Count(text, []byte(`{"type":"reload"`)) != 1 || !bytes.Contains(text, []byte(`"reason":"signal"`)) {
				t.Errorf("%v; the output that stays has\n%s", err, text)
			}
		})
	}
}

// An output that has failed and that a reload removes later has lost records: the exit status says so.
func TestReload_FailedOutputRemoved(t *testing.T) {
	requireRoot(t)
	stays := filepath.Join(t.TempDir(), "stays")
	lines := []string{"port: 1", "stats-interval: 10ms", "outputs: [" + stays + ", /dev/full]"}
	c := newConfiguration(t, lines...)
	stderr, awaitLine := withStderrFile(t)
	tr := launch(t, []string{"--config", c.path}, stderr)
	awaitLine("/dev/full: write /dev/full: no space left on device: this output gets no more records")
	lines[2] = "outputs: [" + stays + "]"
	c.write(lines...)
	tr.signal(syscall.SIGHUP)
	awaitLine("reload: changed outputs")
	tr.signal(syscall.SIGTERM)
	tr.wait().mustEnd(t, 1)
}

// An output that comes back begins behind the rest of what it had: never do two of them write to one FIFO.
func TestReload_OutputComesBack(t *testing.T) {
	requireRoot(t)
	dir := t.TempDir()
	stays, fifo := filepath.Join(dir, "stays"), filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	with, without := []string{"port: 1", "stats-interval: 1ms", "outputs: [" + stays + ", " + fifo + "]"}, []string{"port: 1", "stats-interval: 1ms", "outputs: [" + stays + "]"}
	c := newConfiguration(t, with...)
	stderr, awaitLine := withStderrFile(t)
	tr := launch(t, []string{"--config", c.path}, stderr)
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) { // the pipe has 64 KiB
		if info, err := os.Stat(stays); err == nil && info.Size() > 128<<10 {
			break
		}
		if time.Since(began) > waitLimit {
			tr.fatalf("%s does not grow", stays)
		}
	}
	c.write(without...)
	tr.signal(syscall.SIGHUP)
	awaitLine("reload: changed outputs")
	c.write(with...)
	tr.signal(syscall.SIGHUP)
	awaitLine("reload: outputs: " + fifo + ": its reader has not yet got what it was sent before an earlier reload: reload again when it has: the configuration in use stays")

	streams := make(chan []string)
	go func() {
		var starts []string
		lines := bufio.NewScanner(reader)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var r struct{ Type, Reason string }
			if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
				starts = append(starts, err.Error()+": "+lines.Text())
			}
			if r.Type == "stats" {
				continue
			}
			starts = append(starts, r.Type+r.Reason)
			if r.Reason == "reload" {
				tr.signal(syscall.SIGHUP) // now it may come back
			}
			if len(starts) == 3 {
				tr.signal(syscall.SIGTERM)
			}
			if r.Reason == "signal" {
				break
			}
		}
		streams <- starts
	}()
	tr.wait().mustEnd(t, 0)
	if got, want := <-streams, []string{"start", "stopreload", "start", "stopsignal"}; !slices.Equal(got, want) {
		t.Errorf("the reader got %q besides stats, want %q", got, want)
	}
}
