package cli_test

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// mustSucceed runs a command that must succeed and print nothing on standard error.
func mustSucceed(t testing.TB, args ...string) result {
	t.Helper()
	r := run(args)
	r.mustEnd(t, 0)
	r.mustPrintError(t, "")
	if r.stdout == "" || !strings.HasSuffix(r.stdout, "\n") {
		t.Errorf("want standard output that ends with a newline\n%v", r)
	}
	return r
}

var alertKinds = []string{
	"time_wait_storm", "port_exhaustion", "close_wait_leak", "connect_failures", "fin_wait2_pileup", "reset_burst", "listen_queue_full",
	"alerts_suppressed",
}

// explain knows every state and kind of alert, and lists each in one line.
func TestExplain_EveryState(t *testing.T) {
	listed := strings.Split(strings.TrimSuffix(mustSucceed(t, "explain").stdout, "\n"), "\n")
	if want := len(tcp.States()) + len(alertKinds); len(listed) != want {
		t.Errorf("explain lists %d words, want the %d states and kinds of alert:\n%s", len(listed), want, strings.Join(listed, "\n"))
	}
	names := make(map[string]bool)
	for _, line := range listed {
		name, summary, _ := strings.Cut(line, " ")
		names[name] = strings.TrimSpace(summary) != ""
	}
	for _, kind := range alertKinds {
		if r := mustSucceed(t, "explain", kind); !names[kind] || !strings.HasPrefix(r.stdout, kind+"\n") {
			t.Errorf("%s is not in the list, or has no explanation\n%v", kind, r)
		}
	}
	for _, state := range tcp.States() {
		if !names[state.String()] {
			t.Errorf("explain lists no summary of %v:\n%s", state, strings.Join(listed, "\n"))
		}
		r := mustSucceed(t, "explain", state.String())
		if first, _, _ := strings.Cut(r.stdout, "\n"); !strings.HasPrefix(first, state.String()) {
			t.Errorf("the explanation does not begin with the state\n%v", r)
		}
		for line := range strings.SplitSeq(r.stdout, "\n") {
			if utf8.RuneCountInString(line) > 80 {
				t.Errorf("a line is wider than a terminal: %q\n%v", line, r)
			}
		}
	}
}

// explain accepts usual spellings of a state.
func TestExplain_Spellings(t *testing.T) {
	want := mustSucceed(t, "explain", "FIN_WAIT1").stdout
	for _, args := range [][]string{{"fin_wait1"}, {"fin-wait-1"}, {"FIN", "WAIT", "1"}} {
		if r := mustSucceed(t, append([]string{"explain"}, args...)...); r.stdout != want {
			t.Errorf("want the explanation of FIN_WAIT1\n%v", r)
		}
	}
}

// help lists every command and every flag.
func TestHelp_CommandsAndFlags(t *testing.T) {
	for _, args := range [][]string{{"help"}, {"--help"}, {"-h"}} {
		mention(t, mustSucceed(t, args...), "trace ", "alerts ", "snapshot ", "doctor ", "explain ", "report ", "version ", "completion ", "help ")
	}
	for _, args := range [][]string{{"help"}, {"help", "trace"}, {"trace", "--help"}} {
		mention(t, mustSucceed(t, args...), "--format ", "--schema ", "--fields ", "--color ", "--only ", "--output ", "--duration ", "--count ", "--stats-interval ",
			"--buffer-size ", "--queue-size ", "--label ", "--port ", "--local-port ", "--peer-port ", "--addr ", "--local-addr ", "--peer-addr ",
			"--family ", "--pid ", "--comm ", "--netns ", "--cgroup ", "--old-state ", "--new-state ", "--role ", "--exclude-self ", "--time-wait-end ", "--owner-at-read ", "--sandbox ",
			"--closed-by ", "--min-duration ", "--min-bytes ", "--error ", "--sample ", "--container ", "--pod ")
	}
	mention(t, mustSucceed(t, "alerts", "--help"), "--format ", "--schema ", "--fields ", "--color ", "--output ", "--duration ", "--buffer-size ", "--queue-size ", "--label ", "--exclude-self ", "--owner-at-read ", "--sandbox ",
		"--port ", "--netns ", "--cgroup ", "--container ", "--pod ", "--storm-threshold ", "--alert-interval ", "--close-wait-age ", "--close-wait-count ",
		"--connect-failures ", "--resets ", "--half-closed ")
	mention(t, mustSucceed(t, "snapshot", "--help"), "--format ", "--schema ", "--fields ", "--color ", "--output ", "--label ", "--netns ", "--state ")
	for _, command := range []string{"trace", "alerts", "snapshot"} {
		mention(t, mustSucceed(t, command, "--help"), "--uid ", "--not-port ", "--not-local-port ", "--not-peer-port ",
			"--not-addr ", "--not-local-addr ", "--not-peer-addr ", "--not-pid ", "--not-comm ", "--not-uid ", "--not-netns ", "--not-cgroup ")
	}
	for _, command := range []string{"trace", "alerts", "top", "snapshot", "doctor", "explain", "report", "version", "completion"} {
		if by, of := mustSucceed(t, command, "--help"), mustSucceed(t, "help", command); by.stdout != of.stdout {
			t.Errorf("want the same help from both commands\n%v\n%v", by, of)
		}
	}
}

func mention(t *testing.T, r result, words ...string) {
	t.Helper()
	for _, word := range words {
		if !regexp.MustCompile(`(?m)^ +` + word).MatchString(r.stdout) {
			t.Errorf("no line begins with %q\n%v", word, r)
		}
	}
}

// version prints version, schema and platform.
func TestVersion_Format(t *testing.T) {
	r := mustSucceed(t, "version")
	if !regexp.MustCompile(`^tcpshift \S+, schema 1\.\d+, go\S+ linux/(amd64|arm64)\n$`).MatchString(r.stdout) {
		t.Errorf("want a version line\n%v", r)
	}
}

// Each shell accepts its completion script.
func TestCompletion_Shells(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		t.Run(shell, func(t *testing.T) {
			script := mustSucceed(t, "completion", shell).stdout
			path, err := exec.LookPath(shell)
			if err != nil && shell != "bash" {
				t.Skipf("%s is not installed: the script was not parsed", shell)
			} else if err != nil {
				path = lookPath(t, shell)
			}
			cmd := exec.Command(path, "-n")
			cmd.Stdin = strings.NewReader(script)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s -n refuses the script: %v\n%s", shell, err, out)
			}
		})
	}
}
