package workload

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tcpshift/tcpshift/internal/cgroup"
)

var (
	container = strings.Repeat("a", 64)
	sandbox   = strings.Repeat("5", 64)
)

const (
	podUID    = "2e8ec3c7-6990-4be5-ad35-620e3c14e752"
	staticUID = "0123456789abcdef0123456789abcdef"
)

// Each engine's files have the names. testdata/README.md has the sources of the trees.
func TestFiles_Engines(t *testing.T) {
	inPod := cgroup.Names{Pod: "web-7d4b9c-x2x7k", Namespace: "shop", Container: "nginx", Image: "docker.io/library/nginx:1.27"}
	pause := cgroup.Names{Pod: "web-7d4b9c-x2x7k", Namespace: "shop"}
	fromLogs := cgroup.Names{Pod: "web-7d4b9c-x2x7k", Namespace: "shop", Container: "nginx"}
	for _, tt := range []struct {
		tree string
		key  Key
		want cgroup.Names
	}{
		{"containerd", Key{container, podUID, "containerd"}, inPod},
		{"containerd", Key{sandbox, podUID, "containerd"}, pause},
		{"containerd", Key{container, podUID, ""}, inPod},
		{"containerd", Key{strings.Repeat("f", 64), podUID, "containerd"}, cgroup.Names{}},
		{"nerdctl", Key{container, "", "containerd"}, cgroup.Names{Container: "web"}},
		{"crio", Key{container, podUID, "cri-o"}, inPod},
		{"crio", Key{sandbox, podUID, "cri-o"}, pause},
		{"crio", Key{container, podUID, ""}, inPod},
		{"docker", Key{container, "", "docker"}, cgroup.Names{Container: "web", Image: "nginx:1.27"}},
		{"cri-dockerd", Key{container, podUID, "docker"}, cgroup.Names{Pod: "web-7d4b9c-x2x7k", Namespace: "shop", Container: "nginx", Image: "nginx:1.27"}},
		{"podman", Key{container, "", "podman"}, cgroup.Names{Container: "web", Image: "docker.io/library/nginx:1.27"}},
		{"podman", Key{sandbox, "", "podman"}, cgroup.Names{Container: "once", Image: "docker.io/library/busybox:latest"}},
		{"podman", Key{container, "", ""}, cgroup.Names{Container: "web", Image: "docker.io/library/nginx:1.27"}},
		{"kubelet", Key{container, podUID, "containerd"}, fromLogs},
		{"kubelet", Key{sandbox, podUID, "cri-o"}, pause},
		{"kubelet", Key{"", podUID, ""}, pause},
		{"kubelet", Key{"", staticUID, ""}, cgroup.Names{Pod: "etcd-node1", Namespace: "kube-system"}},
		{"kubelet", Key{container, "", "docker"}, cgroup.Names{}},
		{"none", Key{container, podUID, ""}, cgroup.Names{}},
	} {
		got, found := Files{filepath.Join("testdata", tt.tree)}.Lookup(tt.key)
		if got != tt.want || found != (tt.want != cgroup.Names{}) {
			t.Errorf("%s, %+v: got %+v, %v; want %+v", tt.tree, tt.key, got, found, tt.want)
		}
	}
}

// A file that is not what it should be gives no name, and does not stop the reader.
func TestFiles_Hostile(t *testing.T) {
	const of = "var/lib/docker/containers/"
	for name, content := range map[string]string{
		"not JSON": "{", "a list": "[]", "another type": `{"Name":7}`, "empty": "", "no name": "{}",
		"a name that is too long":   `{"Name":"/` + strings.Repeat("x", maxName+1) + `"}`,
		"an image that is too long": `{"Config":{"Image":"` + strings.Repeat("x", maxImage+1) + `"}}`,
		"too large":                 `{"Name":"/web","x":"` + strings.Repeat("x", maxFile) + `"}`,
	} {
		root := t.TempDir()
		dir := filepath.Join(root, of, container)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "config.v2.json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, found := (Files{root}).Lookup(Key{Container: container, Runtime: "docker"}); found {
			t.Errorf("%s: got %+v", name, got)
		}
	}
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, of, container), 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(root, of, container, "config.v2.json")
	if err := os.Symlink(mustAbs(t, filepath.Join("testdata", "docker", of, container, "config.v2.json")), link); err != nil {
		t.Fatal(err)
	}
	if got, found := (Files{root}).Lookup(Key{Container: container, Runtime: "docker"}); found {
		t.Errorf("a symbolic link: got %+v", got)
	}
}

func mustAbs(t *testing.T, path string) string {
	t.Helper()
	abs, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return abs
}
