package kernel_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

const (
	containerID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	podUID      = "11111111-2222-3333-4444-555555555555"
	podSlice    = "kubepods-burstable-pod11111111_2222_3333_4444_555555555555.slice"
)

// containers are cgroups named as the engines name them; the processes in them are
// only the test's own.
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

// The reader of the stream comes to read only when the process has been killed and the
// container's cgroup has been removed.
func TestOwner_RemovedContainer(t *testing.T) {
	requireFeature(t, probe.SocketCookie)
	reading := make(chan struct{})
	tr := startTracer(t, options{Options: probe.Options{Ends: true}, reading: reading})
	stories := make([]containerStory, len(containers))
	for i, c := range containers {
		stories[i].play(t, tr, c.path)
	}
	close(reading)
	for i, c := range containers {
		t.Run(strings.ReplaceAll(c.path, containerID, "ID"), func(t *testing.T) {
			s := &stories[i]
			s.w.t = t
			told := 0
			for _, l := range s.w.finish() {
				mine := l.Conn == s.connection.conn && (l.Type == "transition" || l.Type == "connection")
				if !mine && (l.Cgroup == s.inside || l.Container != "") {
					t.Errorf("not the container's: %s", l.raw)
				}
				if !mine || l.PID == nil {
					continue
				}
				told++
				if l.Cgroup != s.inside || l.Container != containerID || l.Runtime != c.runtime || l.PodUID != c.pod {
					t.Errorf("the container's is %s, runtime %q, pod %q: %s", s.inside, c.runtime, c.pod, l.raw)
				}
			}
			if told < 3 {
				t.Errorf("%d records name the process", told)
			}
		})
	}
}

// containerStory is a connection of a process in a container, both of which are gone.
type containerStory struct {
	w          *world
	connection *sock
	inside     string // its cgroup
}

func (s *containerStory) play(t *testing.T, tr *tracer, path string) {
	t.Helper()
	w := newWorld(t)
	w.requireCgroups()
	w.watchBy(tr)
	server, client := w.pair()
	remove := client.containIn(path)
	listener := server.listen(at(7000))
	s.w, s.connection = w, client.dial(at(7000))
	child := server.accept(listener)
	s.inside = client.cgroups[len(client.cgroups)-1].value
	client.kill()
	server.awaitState(child, tcplab.CloseWait)
	server.close(child)
	remove()
}

// containIn moves the process into a new cgroup, and gives what removes that, with
// all the levels that were made.
func (a *actor) containIn(path string) (remove func()) {
	t := a.w.t
	t.Helper()
	_, dir := cgroupHierarchy()
	dir = filepath.Join(dir, "tcpshift-"+strconv.Itoa(os.Getpid()))
	var made []string
	for _, level := range append([]string{"."}, strings.Split(path, "/")...) {
		dir = filepath.Join(dir, level)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		made = append(made, dir)
		level := dir
		t.Cleanup(func() { _ = os.Remove(level) }) // where the test has failed before
	}
	from := now()
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(a.pid)), 0); err != nil {
		t.Fatal(err)
	}
	a.cgroups.add(from, now(), cgroupOf(a.pid))
	a.w.stepped(a, from, now())
	return func() {
		for i := range made {
			if err := os.Remove(made[len(made)-1-i]); err != nil {
				t.Fatal(err)
			}
		}
	}
}
