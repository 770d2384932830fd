package cli_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// connectAsNobody connects again and again until the test ends, as a user without privileges, to a port where nothing
// listens. Its arguments have a secret.
func connectAsNobody(t *testing.T, port string) *exec.Cmd {
	t.Helper()
	const connects = `while :; do (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; exec 3<>"/dev/tcp/127.0.0.1/$1"; sleep 0.05; done 2>/dev/null`
	client := exec.Command("bash", "-c", connects, "worker", port, "--password", "hunter2", "https://me:hunter2@db/")
	client.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if err := client.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = client.Process.Kill()
		_ = client.Wait()
	})
	return client
}

// processLine is a process record.
type processLine struct {
	Type, Started, Comm, Exe, Args, User string
	PID, Parent, UID                     int
}

// A process record has what /proc says of a real process of another user, and no secret.
func TestProcess_RealOwner(t *testing.T) {
	requireRoot(t)
	bash, err := filepath.EvalSymlinks(lookPath(t, "bash"))
	if err != nil {
		t.Fatal(err)
	}
	const port = "17113" // nothing listens there
	for _, options := range [][]string{
		{"--only", "connection,process"}, {"--only", "process", "--process-args"}, {"--only", "alert,process,transition", "--process-args", "--sandbox"},
	} {
		t.Run(strings.Join(options, " "), func(t *testing.T) {
			before := time.Now().Add(-20 * time.Millisecond)
			tr := startTracer(t, append(flags("--port", port), options...))
			client := connectAsNobody(t, port)
			var got processLine
			tr.await("process record", func(line string) bool {
				l := processLine{}
				if err := json.Unmarshal([]byte(line), &l); err != nil {
					t.Fatal(err)
				}
				if l.Type == "process" && l.PID == client.Process.Pid {
					got = l
				}
				return got.PID != 0
			})
			started, err := time.Parse(time.RFC3339Nano, got.Started)
			if err != nil || started.Before(before) || started.After(time.Now()) {
				t.Errorf("it started at %s, want after %v", got.Started, before)
			}
			if got.Comm != "bash" || got.Exe != bash || got.Parent != os.Getpid() || got.UID != 65534 || got.User != "nobody" {
				t.Errorf("%+v, want bash, started by %d for nobody", got, os.Getpid())
			}
			wantArgs := len(options) > 2
			if hasArgs := strings.HasSuffix(got.Args, " worker "+port+" --password [redacted] https://[redacted]@db/"); hasArgs != wantArgs || !wantArgs && got.Args != "" {
				t.Errorf("the arguments are %q, want them: %v", got.Args, wantArgs)
			}
			tr.stop()
			if all := tr.read.String(); strings.Contains(all, "hunter2") {
				t.Errorf("the secret is in the output:\n%s", all)
			}
		})
	}
}

// A new file has the process again, once a record in it names the process.
func TestProcess_AgainInNewFile(t *testing.T) {
	requireRoot(t)
	const port = "17114"
	path := filepath.Join(t.TempDir(), "records")
	tr := launch(t, flags("--port", port, "--only", "connection,process", "--output", path))
	awaitFile(t, path).Close()
	client := connectAsNobody(t, port)
	describes := func() bool {
		text, _ := os.ReadFile(path)
		for line := range strings.Lines(string(text)) {
			l := processLine{}
			if strings.HasSuffix(line, "\n") && json.Unmarshal([]byte(line), &l) == nil && l.Type == "process" && l.PID == client.Process.Pid {
				return true
			}
		}
		return false
	}
	await := func(what string) {
		t.Helper()
		for began := time.Now(); !describes(); time.Sleep(5 * time.Millisecond) {
			if time.Since(began) > waitLimit {
				t.Fatalf("no process record in %s", what)
			}
		}
	}
	await("the first file")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	tr.signal(syscall.SIGHUP)
	await("the second file")
	tr.signal(syscall.SIGTERM)
	r := tr.waitUnread()
	r.mustEnd(t, 0)
}

// Each connection and transition of ECS and OpenTelemetry has what /proc says of its real owner, without a process record. The
// arguments are there only if they are wanted, without the secret.
func TestProcess_OnLinesOfSchemas(t *testing.T) {
	requireRoot(t)
	bash, err := filepath.EvalSymlinks(lookPath(t, "bash"))
	if err != nil {
		t.Fatal(err)
	}
	const port = "17115" // nothing listens there
	for _, tt := range []struct {
		schema, only, dataset, exe, parent, started, user, args string
		options                                                 []string
	}{
		{
			"ecs", "connection", `"event.dataset":"tcpshift.connection"`, "process.executable", "process.parent.pid", "process.start", "user.name",
			"process.command_line", nil,
		},
		{
			"otel", "transition,alert", `"event_name":"tcpshift.transition"`, "process.executable.path", "process.parent_pid", "process.creation.time",
			"process.owner", "process.command_args", []string{"--process-args", "--sandbox", "--process-redact", "worker [0-9]+", "--process-redact", "@.b"},
		},
	} {
		t.Run(tt.schema, func(t *testing.T) {
			tr := launch(t, append(flags("--port", port, "--schema", tt.schema, "--only", tt.only), tt.options...))
			tr.next() // start
			client := connectAsNobody(t, port)
			var members map[string]any
			tr.await("record with its owner", func(line string) bool {
				if !strings.Contains(line, tt.dataset) || !strings.Contains(line, tt.exe) {
					return false
				}
				l := make(map[string]any)
				if err := json.Unmarshal([]byte(line), &l); err != nil {
					t.Fatal(err)
				}
				if inner, isOTel := l["attributes"].(map[string]any); isOTel {
					l = inner
				}
				if l["process.pid"] == float64(client.Process.Pid) {
					members = l
				}
				return members != nil
			})
			for key, want := range map[string]any{tt.exe: bash, tt.parent: float64(os.Getpid()), tt.user: "nobody", "user.id": "65534"} {
				if members[key] != want {
					t.Errorf("%s is %v, want %v", key, members[key], want)
				}
			}
			if _, err := time.Parse(time.RFC3339Nano, members[tt.started].(string)); err != nil {
				t.Error(err)
			}
			if args, found := members[tt.args]; found != (tt.options != nil) || found && !strings.HasSuffix(fmt.Sprint(args), " [redacted] [redacted] --password [redacted] https://[redacted]/]") {
				t.Errorf("the arguments are %v", args)
			}
			tr.signal(syscall.SIGTERM)
			r := tr.wait()
			r.mustEnd(t, 0)
			if all := r.stdout; strings.Contains(all, "hunter2") || strings.Contains(all, "tcpshift.process") {
				t.Errorf("the output has the secret, or a process record:\n%s", all)
			}
		})
	}
}
