package kernel_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

const (
	containerID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	podUID      = "11111111-2222-3333-4444-555555555555"
	podSlice    = "kubepods-burstable-pod11111111_2222_3333_4444_555555555555.slice"
)

// containers are cgroups with the names that container engines give them. Their
// processes are actors.
var containers = []struct {
	path, runtime, pod string
}{
	{"docker/" + containerID, "docker", ""},
	{"system.slice/docker-" + containerID + ".scope", "docker", ""},
	{"machine.slice/libpod-" + containerID + ".scope", "podman", ""},
	{"kubepods.slice/kubepods-burstable.slice/" + podSlice + "/cri-containerd-" + containerID + ".scope", "containerd", podUID},
	{"kubepods.slice/kubepods-burstable.slice/" + podSlice + "/crio-" + containerID + ".scope", "cri-o", podUID},
	{"kubepods/burstable/pod" + podUID + "/" + containerID, "", podUID},
}

// The reader of the stream begins to read after the process was killed and the cgroup
// of its container removed. Records still have the cgroup path and the container.
func TestOwner_RemovedContainer(t *testing.T) {
	harness.RequireFeature(t, probe.SocketCookie)
	reading := make(chan struct{})
	tr := harness.StartTracer(t, harness.Options{Options: probe.Options{Ends: true}, Reading: reading})
	runs := make([]containerRun, len(containers))
	for i, c := range containers {
		runs[i].run(t, tr, c.path, nil)
	}
	close(reading)
	for i, c := range containers {
		t.Run(strings.ReplaceAll(c.path, containerID, "ID"), func(t *testing.T) {
			run := &runs[i]
			run.w.T = t
			named := 0
			for _, l := range run.w.Finish() {
				mine := l.Conn == run.connection.Conn && (l.Type == "transition" || l.Type == "connection")
				if !mine && (l.Cgroup == run.inside || l.Container != "") {
					t.Errorf("a record of no container process has its cgroup or container: %s", l.Raw)
				}
				if !mine || l.PID == nil {
					continue
				}
				named++
				if l.Cgroup != run.inside || l.Container != containerID || l.Runtime != c.runtime || l.PodUID != c.pod {
					t.Errorf("want cgroup %s, runtime %q, pod %q: %s", run.inside, c.runtime, c.pod, l.Raw)
				}
			}
			if named < 3 {
				t.Errorf("%d records name the process, want 3 or more", named)
			}
		})
	}
}

// A name that a user other than root may have chosen, because the directory above is not only
// root's, is marked. It does not replace the container that root has made.
func TestOwner_ClaimedContainer(t *testing.T) {
	harness.RequireFeature(t, probe.SocketCookie)
	const scope, nobody = "docker-" + containerID + ".scope", 65534
	other := "/docker-" + strings.Repeat("a", 64) + ".scope"
	give := func(dir string) error { return os.Chown(dir, nobody, nobody) }
	open := func(mode os.FileMode) func(string) error {
		return func(dir string) error { return os.Chmod(dir, mode) }
	}
	for _, c := range []struct {
		name, path, dir string
		change          func(dir string) error // of dir
		claimed         bool
	}{
		{"all root's", "mine/" + scope, "mine", nil, false},
		{"the user's directory", "mine/" + scope, "mine", give, true},
		{"the user's directory further up", "mine/x/" + scope + "/init", "mine", give, true},
		{"a directory of all users", "mine/" + scope, "mine", open(0o777), true},
		{"a directory of a group", "mine/" + scope, "mine", open(0o775), true},
		{"the container is the user's", "mine/" + scope + "/init", scope, give, false},
		{"another container in the user's", "mine/" + scope + other, scope, give, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := harness.StartTracer(t, harness.Options{Options: probe.Options{Ends: true}})
			var run containerRun
			run.run(t, tr, c.path, func(dir string) {
				if c.change == nil || filepath.Base(dir) != c.dir {
					return
				}
				if err := c.change(dir); err != nil {
					t.Fatal(err)
				}
			})
			named := 0
			for _, l := range run.w.Finish() {
				if l.Conn != run.connection.Conn || l.PID == nil || l.Type != "transition" && l.Type != "connection" {
					continue
				}
				named++
				if l.Container != containerID || l.Claimed != c.claimed {
					t.Errorf("want container %s, claimed %v: %s", containerID, c.claimed, l.Raw)
				}
			}
			if named < 3 {
				t.Errorf("%d records name the process, want 3 or more", named)
			}
		})
	}
}

// A cgroup's name may have any bytes but the slash and the newline, 255 of them at most.
// Each record has all of them, and is valid JSON.
func TestOwner_CgroupNameOfAnyBytes(t *testing.T) {
	harness.RequireFeature(t, probe.SocketCookie)
	reading := make(chan struct{})
	tr := harness.StartTracer(t, harness.Options{Options: probe.Options{Ends: true}, Reading: reading})
	names := []string{strings.Repeat("x", unix.NAME_MAX), anyBytes(unix.NAME_MAX), "a/" + anyBytes(100) + "/" + strings.Repeat("é", 127)}
	runs := make([]containerRun, len(names))
	for i, name := range names {
		runs[i].run(t, tr, name, nil)
	}
	close(reading)
	for i, name := range names {
		t.Run(fmt.Sprintf("%d bytes", len(name)), func(t *testing.T) {
			run := &runs[i]
			run.w.T = t
			named := 0
			for _, l := range run.w.Finish() {
				if l.Conn != run.connection.Conn || l.PID == nil || l.Type != "transition" && l.Type != "connection" {
					continue
				}
				named++
				if l.Cgroup != run.inside {
					t.Errorf("want cgroup %q: %s", run.inside, l.Raw)
				}
			}
			if !strings.HasSuffix(run.inside, string([]rune(name))) {
				t.Errorf("the process is in %q, want in %q", run.inside, name)
			}
			if named < 3 {
				t.Errorf("%d records name the process, want 3 or more", named)
			}
		})
	}
}

// anyBytes is a name of this length with every byte that a name may have, if it is long
// enough: quotes, backslashes, controls, and bytes that are not UTF-8.
func anyBytes(length int) string {
	name := []byte("\"\\\x1b[2J\u202e")
	for b := 1; len(name) < length; b = b%255 + 1 {
		if b != '/' && b != '\n' {
			name = append(name, byte(b))
		}
	}
	return string(name)
}

// containerRun is a connection of a process in a container, after both are gone.
type containerRun struct {
	w          *harness.Env
	connection *harness.Socket
	inside     string // the cgroup of the process
}

func (run *containerRun) run(t *testing.T, tr *harness.Tracer, path string, each func(dir string)) {
	t.Helper()
	env := harness.NewEnv(t)
	env.RequireCgroups()
	env.UseTracer(tr)
	server, client := env.ServerAndClient()
	remove := client.MoveToNestedCgroup(path, each)
	listener := server.Listen(harness.At(7000))
	run.w, run.connection = env, client.Dial(harness.At(7000))
	child := server.Accept(listener)
	run.inside = client.Cgroups[len(client.Cgroups)-1].Value
	client.Kill()
	server.AwaitState(child, tcplab.CloseWait)
	server.Close(child)
	remove()
}
