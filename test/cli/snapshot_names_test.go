package cli_test

import (
	"bufio"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// connectIn makes a connection to port from a process in the cgroup, which lives until the test ends.
func connectIn(t *testing.T, cgroupDir, port string) {
	t.Helper()
	const script = `echo $$ >"$0/cgroup.procs" && exec 3<>"/dev/tcp/127.0.0.1/$1" && echo connected && read`
	client := exec.Command("bash", "-c", script, cgroupDir, port)
	in, err := client.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := client.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = client.Wait() // read fails at the end of its input
		awaitEmpty(t, cgroupDir)
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "connected\n" {
		t.Fatalf("the client says %q, %v", line, err)
	}
}

// A socket of a container has the name that the engine's file gives it, and is selected and counted by it.
func TestSnapshot_Names(t *testing.T) {
	requireRoot(t)
	dir := containerCgroup(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	port := strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
	connectIn(t, dir, port)
	id := strings.Repeat("a", 12)
	for _, tt := range []struct {
		options string
		lines   int    // that the snapshot has
		have    string // in one of them
	}{
		{"", 3, `"container":"` + strings.Repeat("a", 64) + `","container_runtime":"docker","container_name":"web"`},
		{"--schema ecs", 3, `"container.name":"web","container.image.name":"nginx:1.27"`},
		{"--schema otel", 3, `"container.name":"web","container.image.name":"nginx:1.27"`},
		{"--container web", 1, `"container_name":"web"`},
		{"--container web --format text", 2, "127.0.0.1:" + port},
		{"--container " + id, 1, `"container_name":"web"`},
		{"--container other", 0, ""},
		{"--pod web", 0, ""},
		{"--count-by container_name --container web", 1, `"sockets":1,"container_name":"web"`},
		{"--count-by container_name", 2, `"sockets":1,"container_name":"web"`},
		{"--count-by service --format text --container web", 2, "      1 web\n"},
		{"--count-by container --container web", 1, `"sockets":1,"container":"` + id},
	} {
		t.Run(tt.options, func(t *testing.T) {
			r := run(append(flags("snapshot", "--port", port), strings.Fields(tt.options)...), withDockerContainer(t))
			r.mustEnd(t, 0)
			r.mustPrintError(t, "")
			if strings.Count(r.stdout, "\n") != tt.lines || !strings.Contains(r.stdout, tt.have) {
				t.Errorf("want %d lines, and %s:\n%v", tt.lines, tt.have, r)
			}
			if n := strings.Count(r.stdout, `:"web"`); n > 1 {
				t.Errorf("%d sockets are of the container, want one:\n%v", n, r)
			}
		})
	}
}
