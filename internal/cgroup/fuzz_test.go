package cgroup

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	containerForm = regexp.MustCompile(`^[0-9a-f]{64}$`)
	podForm       = regexp.MustCompile(`^([0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})$`)
)

// The description of any path is well-formed and consists of parts of the path. The
// cgroups below have an equal description.
func FuzzDescribe(f *testing.F) {
	for _, path := range []string{
		"", "/", "//", ":", "::", "/:nerdctl:", "/.slice::", "pod", "/kubepods/pod", "/kubepods-pod.slice", "-.scope",
		"/docker/" + outer,
		"/system.slice/docker-" + outer + ".scope/init.scope",
		"/kubepods/burstable/pod" + pod + "/" + outer,
		"/kubepods.slice/kubepods-pod" + podU + ".slice/crio-conmon-" + outer + ".scope",
		"/kubepods-burstable-pod" + hash + ".slice:cri-containerd:" + outer,
		"/docker/" + outer + "/libpod_parent/" + inner + "/libpod-" + inner,
		"/machine.slice/libpod-payload-\xff\x00" + outer,
	} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		got := Describe(path, 0)
		checkForm(t, got)
		if got.Path != path {
			t.Errorf("the path %q came back as %q", path, got.Path)
		}
		below := Describe(path+"/init.scope", 0)
		if below.Path = path; below != got {
			t.Errorf("below %q:\n got %+v\nwant %+v", path, below, got)
		}
		nested := Describe("/docker/"+outer+"/"+path, 0)
		if nested.Container == "" {
			t.Errorf("%q within a container is in none", path)
		}
		if got.Container != "" && nested.Container != got.Container {
			t.Errorf("%q within a container is in %s, want %s", path, nested.Container, got.Container)
		}
		claimed := Describe("/docker/"+outer+"/"+path, len(strings.FieldsFunc(path, func(r rune) bool { return r == '/' })))
		if claimed.Container != outer || claimed.PodUID != "" || claimed.ContainerClaimed {
			t.Errorf("a user can claim to be in another container or pod than root's: %q: %+v", path, claimed)
		}
	})
}

func checkForm(t *testing.T, got Info) {
	t.Helper()
	if got.Container != "" && (!containerForm.MatchString(got.Container) || !strings.Contains(got.Path, got.Container)) {
		t.Errorf("%q: container %q", got.Path, got.Container)
	}
	if !slices.Contains([]string{"", "docker", "containerd", "cri-o", "podman"}, got.Runtime) {
		t.Errorf("%q: runtime %q", got.Path, got.Runtime)
	}
	if got.Runtime != "" && got.Container == "" {
		t.Errorf("%q: runtime %q of no container", got.Path, got.Runtime)
	}
	if got.PodUID != "" && (!podForm.MatchString(got.PodUID) ||
		!strings.Contains(strings.ReplaceAll(got.Path, "_", "-"), got.PodUID)) {
		t.Errorf("%q: pod %q", got.Path, got.PodUID)
	}
}

func BenchmarkDescribe(b *testing.B) {
	for name, path := range map[string]string{
		"service": user + "/app.slice/redis.service",
		"docker":  "/system.slice/docker-" + outer + ".scope",
		"pod":     "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + podU + ".slice/cri-containerd-" + outer + ".scope",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Describe(path, 0)
			}
		})
	}
}
