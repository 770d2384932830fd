package cli_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// withDockerContainer runs the program in a mount namespace of its own, in which Docker has the
// container of internal/workload/testdata/docker.
func withDockerContainer(t *testing.T) func(*exec.Cmd) {
	t.Helper()
	tree, err := filepath.Abs("../../internal/workload/testdata/docker/var/lib/docker")
	if err != nil {
		t.Fatal(err)
	}
	return func(cmd *exec.Cmd) {
		const script = `mount -t tmpfs none /var/lib && cp -r "$0" /var/lib/docker && exec "$@"`
		replaced := exec.Command("unshare", append([]string{"-m", "--propagation", "private", "sh", "-c", script, tree}, cmd.Args...)...)
		cmd.Path, cmd.Args = replaced.Path, replaced.Args
	}
}

// containerCgroup makes a cgroup with the name of Docker's container in the hierarchy whose paths
// records have.
func containerCgroup(t *testing.T) string {
	t.Helper()
	mount := "/sys/fs/cgroup/memory" // v1
	if _, err := os.Stat(filepath.Join(mount, "cgroup.procs")); err != nil {
		mount = cgroupMount(t)
	}
	dir := filepath.Join(mount, "docker-"+strings.Repeat("a", 64)+".scope")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeCgroup(t, dir) })
	return dir
}

// A connection of a container has the name that the engine's file gives it, also in the sandbox
// while alerts are on.
func TestNames_DockerContainer(t *testing.T) {
	requireRoot(t)
	const port = "17112" // nothing listens there: each connect() is refused, and has a record
	selected := flags("--only", "connection", "--container", "web")
	for _, options := range [][]string{nil, {"--sandbox"}, selected} {
		t.Run(strings.Join(options, " "), func(t *testing.T) {
			dir := containerCgroup(t)
			tr := startTracer(t, append(flags("--port", port), options...), withDockerContainer(t))
			// The first connection makes tcpshift ask for the name.
			const connects = `echo $$ >"$0/cgroup.procs" && for i in $(seq 600); do (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; sleep 0.05; done`
			client := exec.Command("bash", "-c", connects, dir, port)
			if err := client.Start(); err != nil {
				t.Fatal(err)
			}
			tr.await("connection record with the container's name", func(line string) bool {
				return strings.HasPrefix(line, `{"type":"connection"`) && strings.Contains(line, `"container_name":"web"`)
			})
			_ = client.Process.Kill()
			_ = client.Wait()
			tr.stop()
			awaitEmpty(t, dir)
		})
	}
}

// awaitEmpty waits until a cgroup has no process, which ends a little after its parent.
func awaitEmpty(t *testing.T, dir string) {
	t.Helper()
	for range 1000 {
		if procs, err := os.ReadFile(filepath.Join(dir, "cgroup.procs")); err == nil && len(procs) == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%s still has processes", dir)
}
