package cgroup

import "testing"

const (
	outer = "3f1d0c5a9be24e7786f0a1c2d3b4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f6"
	inner = "c0ffee11d22e33f44a55b66c77d88e99f00a11b22c33d44e55f66a77b88c99d0"
	pod   = "2c48913c-b29f-11e7-9350-020968147796"
	podU  = "2c48913c_b29f_11e7_9350_020968147796"
	hash  = "99dcb84d2a34f7e338778606703258c4" // a static pod's uid
	user  = "/user.slice/user-1000.slice/user@1000.service"
	kind  = "/system.slice/docker-" + outer + ".scope/kubelet.slice/kubelet-kubepods.slice" // kind: a node in Docker
)

type described struct {
	name, path string
	want       Info // its Path is the test's
}

func run(t *testing.T, tests []described) {
	t.Helper()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.want.Path = tt.path
			got := Describe(tt.path, 0)
			got.Unit = "" // TestDescribe_Units checks it
			if got != tt.want {
				t.Errorf("%s\n got %+v\nwant %+v", tt.path, got, tt.want)
			}
		})
	}
}

// The forms are those of moby daemon/oci_linux.go (WithCgroups), nerdctl
// pkg/cmd/container (generateCgroupPath), podman libpod/container_internal_linux.go
// (getOCICgroupPath), and runc's libcontainer/cgroups/systemd (getUnitName).
func TestDescribe_Engines(t *testing.T) {
	docker := Info{Container: outer, Runtime: "docker"}
	containerd := Info{Container: outer, Runtime: "containerd"}
	podman := Info{Container: outer, Runtime: "podman"}
	bare := Info{Container: outer}
	run(t, []described{
		{"Docker with cgroupfs has its own parent", "/docker/" + outer, docker},
		{"Docker with systemd makes scopes", "/system.slice/docker-" + outer + ".scope", docker},
		{"rootless Docker is in the user's manager", user + "/user.slice/docker-" + outer + ".scope", docker},
		{"Docker under a slice of the user's", "/batch.slice/batch-night.slice/docker-" + outer + ".scope", docker},
		{"Docker whose runtime knows no systemd", "/system.slice/system.slice:docker:" + outer, docker},
		{"ECS with systemd", "/ecstasks.slice/ecstasks-" + hash + ".slice/docker-" + outer + ".scope", docker},
		{"ECS with cgroupfs names no runtime", "/ecs/" + hash + "/" + outer, bare},
		{"a GitHub job's parent names no runtime", "/actions_job/" + outer, bare},
		{"Docker's own init cgroup below", "/docker/" + outer + "/init", docker},

		{"nerdctl with systemd", "/system.slice/nerdctl-" + outer + ".scope", containerd},
		{"rootless nerdctl", user + "/user.slice/nerdctl-" + outer + ".scope", containerd},
		{"nerdctl with cgroupfs is under its namespace", "/default/" + outer, bare},
		{"rootless nerdctl may leave out the slice", user + "/:nerdctl:" + outer, containerd},

		{"Podman with systemd", "/machine.slice/libpod-" + outer + ".scope", podman},
		{"crun puts the payload one below", "/machine.slice/libpod-" + outer + ".scope/container", podman},
		{"rootless Podman", user + "/user.slice/libpod-" + outer + ".scope/container", podman},
		{"a Podman pod's slice", "/machine.slice/machine-libpod_pod_" + inner + ".slice/libpod-" + outer + ".scope/container", podman},
		{"a rootless Podman pod", user + "/user.slice/user-libpod_pod_" + inner + ".slice/libpod-" + outer + ".scope", podman},
		{"Podman with cgroupfs", "/libpod_parent/libpod-" + outer, podman},
		{"a Podman pod with cgroupfs is no container", "/libpod_parent/" + inner + "/libpod-" + outer, podman},
		{"Quadlet splits the service", "/system.slice/nginx.service/libpod-payload-" + outer, podman},
		{"rootless Quadlet", user + "/app.slice/redis.service/libpod-payload-" + outer, podman},
		{"Quadlet of a template", user + "/app.slice/app-map.slice/map@8000.service/libpod-payload-" + outer + "/container", podman},
	})
}

// The forms are those of kubernetes pkg/kubelet/cm (pod_container_manager_linux.go,
// cgroup_manager_linux.go) and pkg/kubelet/config/common.go (applyDefaults),
// containerd internal/cri (getCgroupsPath) and cri-o internal/config/cgmgr.
func TestDescribe_Pods(t *testing.T) {
	const (
		burstable  = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod"
		besteffort = "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod"
		guaranteed = "/kubepods.slice/kubepods-pod"
	)
	containerd := Info{Container: outer, Runtime: "containerd", PodUID: pod}
	crio := Info{Container: outer, Runtime: "cri-o", PodUID: pod}
	docker := Info{Container: outer, Runtime: "docker", PodUID: pod}
	bare := Info{Container: outer, PodUID: pod}
	none := Info{PodUID: pod}
	static := Info{Container: outer, Runtime: "containerd", PodUID: hash}
	run(t, []described{
		{"containerd, burstable", burstable + podU + ".slice/cri-containerd-" + outer + ".scope", containerd},
		{"containerd, best effort", besteffort + podU + ".slice/cri-containerd-" + outer + ".scope", containerd},
		{"containerd, guaranteed, has no level for it", guaranteed + podU + ".slice/cri-containerd-" + outer + ".scope", containerd},
		{"containerd whose runtime knows no systemd", "/system.slice/containerd.service/kubepods-besteffort-pod" + podU + ".slice:cri-containerd:" + outer, containerd},
		{"that form at the root", "/kubepods-burstable-pod" + podU + ".slice:cri-containerd:" + outer, containerd},
		{"that form, guaranteed", "/kubepods-pod" + podU + ".slice:cri-containerd:" + outer, containerd},
		{"a static pod's uid is a hash", burstable + hash + ".slice/cri-containerd-" + outer + ".scope", static},
		{"a static pod's uid in the form with colons", "/kubepods-burstable-pod" + hash + ".slice:cri-containerd:" + outer, static},
		{"a static pod with cgroupfs", "/kubepods/burstable/pod" + hash + "/" + outer, Info{Container: outer, PodUID: hash}},
		{"cgroupfs, burstable, names no runtime", "/kubepods/burstable/pod" + pod + "/" + outer, bare},
		{"cgroupfs, best effort", "/kubepods/besteffort/pod" + pod + "/" + outer, bare},
		{"cgroupfs, guaranteed", "/kubepods/pod" + pod + "/" + outer, bare},
		{"a kubelet with another root", "/pods/kubepods/burstable/pod" + pod + "/" + outer, bare},
		{"a kubelet with another slice", "/pods.slice/pods-kubepods.slice/pods-kubepods-pod" + podU + ".slice/cri-containerd-" + outer + ".scope", containerd},
		{"Docker under the kubelet", besteffort + podU + ".slice/docker-" + outer + ".scope", docker},

		{"CRI-O", burstable + podU + ".slice/crio-" + outer + ".scope", crio},
		{"CRI-O with crun", burstable + podU + ".slice/crio-" + outer + ".scope/container", crio},
		{"CRI-O with cgroupfs", "/kubepods/burstable/pod" + pod + "/crio-" + outer, crio},
		{"CRI-O's cgroup for a sandbox without a process", guaranteed + podU + ".slice/crio-" + outer, crio},
		{"CRI-O's monitor is in the pod only", burstable + podU + ".slice/crio-conmon-" + outer + ".scope", none},
		{"CRI-O's monitor with cgroupfs", "/kubepods/burstable/pod" + pod + "/crio-conmon-" + outer, none},

		{"a pod's slice", guaranteed + podU + ".slice", none},
		{"a pod's directory", "/kubepods/besteffort/pod" + pod, none},
		{"a container's name that was cut", "/kubepods-burstable-pod" + podU + ".slice:cri-containerd:" + outer[:46], none},
		{"a class", "/kubepods.slice/kubepods-burstable.slice", Info{}},
		{"all pods", "/kubepods", Info{}},
	})
}

// The innermost container and the innermost pod win.
func TestDescribe_InnermostWins(t *testing.T) {
	run(t, []described{
		{"systemd in a container", "/docker/" + outer + "/system.slice/nginx.service", Info{Container: outer, Runtime: "docker"}},
		{"systemd's own scope in a container", "/machine.slice/libpod-" + outer + ".scope/container/init.scope", Info{Container: outer, Runtime: "podman"}},
		{"Docker in Docker", "/docker/" + outer + "/docker/" + inner, Info{Container: inner, Runtime: "docker"}},
		{"Podman in Docker", "/system.slice/docker-" + outer + ".scope/machine.slice/libpod-" + inner + ".scope", Info{Container: inner, Runtime: "podman"}},
		{"the inner Podman's monitor is in the outer container", "/docker/" + outer + "/machine.slice/libpod-conmon-" + inner + ".scope", Info{Container: outer, Runtime: "docker"}},
		{"the inner engine's service is in the outer container", "/docker/" + outer + "/system.slice/containerd.service", Info{Container: outer, Runtime: "docker"}},
		{"a bare id does not inherit the outer runtime", "/docker/" + outer + "/default/" + inner, Info{Container: inner}},
		{"Docker in a pod stays in the pod", "/kubepods/burstable/pod" + pod + "/" + outer + "/docker/" + inner, Info{Container: inner, Runtime: "docker", PodUID: pod}},
		{"Docker in LXC", "/lxc.payload.web/system.slice/docker-" + outer + ".scope", Info{Container: outer, Runtime: "docker"}},
		{"a pod in kind", kind + "/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod" + podU + ".slice/cri-containerd-" + inner + ".scope", Info{Container: inner, Runtime: "containerd", PodUID: pod}},
		{"a guaranteed pod in kind", kind + "/kubelet-kubepods-pod" + podU + ".slice/cri-containerd-" + inner + ".scope", Info{Container: inner, Runtime: "containerd", PodUID: pod}},
		{"a pod in kind with cgroupfs", "/docker/" + outer + "/kubelet/kubepods/burstable/pod" + pod + "/" + inner, Info{Container: inner, PodUID: pod}},
		{"kind's kubelet is in the node", "/docker/" + outer + "/kubelet.slice/kubelet.service", Info{Container: outer, Runtime: "docker"}},
		{"a pod in minikube with CRI-O", "/docker/" + outer + "/kubepods.slice/kubepods-pod" + podU + ".slice/crio-" + inner + ".scope", Info{Container: inner, Runtime: "cri-o", PodUID: pod}},
	})
}
