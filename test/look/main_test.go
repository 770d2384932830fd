// Package look_test opens the pages of tcpshift in a real Chromium, and its screen in a real terminal: a real storm is
// recorded by the real tracer, and the numbers are compared with those that jq finds in the recording.
package look_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The programs, built once.
var program, browserProgram string

// directory has what all tests share.
var directory string

func TestMain(m *testing.M) {
	if text := os.Getenv(workerEnv); text != "" {
		runWorker(text)
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "tcpshift-look-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	directory = dir
	program, browserProgram = filepath.Join(dir, "tcpshift"), filepath.Join(dir, "browser")
	for _, build := range [][]string{{"-o", program, "../../cmd/tcpshift"}, {"-C", "browser", "-o", browserProgram, "."}} {
		args := []string{"build", "-buildvcs=false"}
		if build[0] == "-C" {
			args = []string{"-C", build[1], "build", "-buildvcs=false"}
			build = build[2:]
		}
		cmd := exec.Command("go", append(args, build...)...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Run(); err != nil {
			fmt.Fprintln(os.Stderr, "build", build, err)
			return 1
		}
	}
	return m.Run()
}

// skipMissing skips a test that cannot run here. Under CI=true it fails the test.
func skipMissing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// step and answer are what the command browser reads and writes: browser/main.go has their contracts.
type step struct {
	Open, Scheme, Evaluate, Press, Screenshot string
	Width, Height                             int
}

type answer struct {
	Value              json.RawMessage
	Error              string
	Requests, Problems []string
}

// browser is a Chromium. At its end the test fails if a page left messages in the console or made a request. The methods
// fail the test after an error.
type browser struct {
	t        *testing.T
	in       io.WriteCloser
	out      *json.Decoder
	last     answer
	expected []string // requests
	origin   string   // of further requests; empty: there are none
}

// newBrowser starts a Chromium that ends with the test.
func newBrowser(t *testing.T) *browser {
	t.Helper()
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		skipMissing(t, "needs chromium: test/check/install-deps.sh look")
	}
	cmd := exec.Command(browserProgram, chromium)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	b := &browser{t: t, in: in, out: json.NewDecoder(out)}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error("browser:", err)
		}
		if len(b.last.Problems) > 0 {
			t.Errorf("the page has problems: %q", b.last.Problems)
		}
		for i, request := range b.last.Requests {
			if b.origin != "" && strings.HasPrefix(request, b.origin+"/") {
				continue
			}
			if i >= len(b.expected) || request != b.expected[i] {
				t.Errorf("the page makes requests: %q", b.last.Requests)
				break
			}
		}
	})
	return b
}

// do executes a step and returns the value of its answer.
func (b *browser) do(s step) json.RawMessage {
	b.t.Helper()
	if err := json.NewEncoder(b.in).Encode(s); err != nil {
		b.t.Fatal(err)
	}
	b.last.Value = nil
	var a answer
	if err := b.out.Decode(&a); err != nil {
		b.t.Fatal(err)
	}
	b.last = a
	if a.Error != "" {
		b.t.Fatalf("%+v: %s", s, a.Error)
	}
	return a.Value
}

// open opens a file in a window that is 1200 pixels wide. scheme is light or dark.
func (b *browser) open(path, scheme string, height int) {
	b.t.Helper()
	b.expected = append(b.expected, "file://"+path)
	b.do(step{Open: "file://" + path, Width: 1200, Height: height, Scheme: scheme})
}

// evaluate stores the value of a JavaScript expression in value.
func (b *browser) evaluate(value any, expression string) {
	b.t.Helper()
	if err := json.Unmarshal(b.do(step{Evaluate: expression}), value); err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
}

// is reports whether a JavaScript expression is true.
func (b *browser) is(expression string) bool {
	b.t.Helper()
	var value bool
	b.evaluate(&value, "!!("+expression+")")
	return value
}

// await waits until a JavaScript expression is true. If it is not true within 10 s, the test fails with the message
// failure.
func (b *browser) await(expression, failure string) {
	b.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !b.is(expression); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.t.Fatal(failure)
		}
	}
}

// press presses keys, one after the other.
func (b *browser) press(keys ...string) {
	b.t.Helper()
	for _, key := range keys {
		b.do(step{Press: key})
	}
}

// jq applies a jq filter to the array of all records of a recording, and stores the result in value.
func jq(t *testing.T, value any, recording, filter string) {
	t.Helper()
	out, err := exec.Command("jq", "-s", "-c", filter, recording).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("jq %s: %s", filter, exit.Stderr)
		}
		skipMissing(t, "needs jq: test/check/install-deps.sh test")
	}
	if err := json.Unmarshal(out, value); err != nil {
		t.Fatal(err)
	}
}

// makePage makes the page of recordings, and returns its path.
func makePage(t *testing.T, recordings ...string) string {
	t.Helper()
	page := filepath.Join(t.TempDir(), "page.html")
	out, err := exec.Command(program, append([]string{"report", "-o", page}, recordings...)...).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Fatalf("report: %v, %s", err, out)
	}
	return page
}
