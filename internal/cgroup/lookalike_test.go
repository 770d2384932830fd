package cgroup

import "testing"

// Paths that resemble those of containers and pods are not taken for them.
func TestDescribe_NotAContainer(t *testing.T) {
	none := Info{}
	run(t, []described{
		{"the root", "/", none},
		{"nothing", "", none},
		{"init", "/init.scope", none},
		{"a login session", "/user.slice/user-1000.slice/session-3.scope", none},
		{"the engine itself", "/system.slice/docker.service", none},
		{"containerd, with the shims", "/system.slice/containerd.service", none},
		{"CRI-O itself", "/system.slice/crio.service", none},
		{"the kubelet", "/system.slice/kubelet.service", none},
		{"Podman itself", user + "/user.slice/podman-239302.scope", none},
		{"Podman's namespace keeper", user + "/user.slice/podman-pause-68f2a5c1.scope", none},
		{"Podman's monitor", "/machine.slice/libpod-conmon-" + outer + ".scope", none},
		{"rootless Podman's monitor", user + "/user.slice/libpod-conmon-" + outer + ".scope", none},
		{"Podman's monitors with cgroupfs", "/libpod_parent/conmon", none},
		{"the monitors of a Podman pod", "/libpod_parent/" + outer + "/conmon", none},
		{"the monitor beside a split payload", "/system.slice/nginx.service/runtime", none},
		{"the service of podman generate systemd", "/system.slice/container-" + outer + ".service", none},
		{"a health check", "/system.slice/" + outer + ".service", none},
		{"a health check of newer Podman", user + "/app.slice/" + outer + "-5d3c1b2a9f8e7d60.service", none},
		{"a container's mount", "/system.slice/run-containerd-io.containerd.runtime.v2.task-k8s.io-" + outer + "-rootfs.mount", none},
		{"a Podman pod's slice", "/machine.slice/machine-libpod_pod_" + outer + ".slice", none},
		{"an image build with systemd", "/system.slice/system.slice:docker:jvifp9a6b1lxa1kuw8bwfcovf", none},
		{"an image build with cgroupfs", "/docker/jvifp9a6b1lxa1kuw8bwfcovf", none},
		{"a virtual machine", "/machine.slice/machine-qemu\\x2d1\\x2dweb.scope/libvirt/emulator", none},
		{"an LXC container, which has no such id", "/lxc.payload.web/init.scope", none},

		{"63 digits", "/system.slice/docker-" + outer[1:] + ".scope", none},
		{"65 digits", "/system.slice/docker-" + outer + "0.scope", none},
		{"63 bare digits", "/docker/" + outer[1:], none},
		{"capitals", "/docker/" + "3F1D0C5A9BE24E7786F0A1C2D3B4E5F60718293A4B5C6D7E8F90A1B2C3D4E5F6", none},
		{"a digit that is none", "/docker/" + outer[:63] + "g", none},
		{"a prefix that no engine has", "/system.slice/notdocker-" + outer + ".scope", none},
		{"a longer prefix", "/system.slice/my-docker-" + outer + ".scope", none},
		{"no prefix", "/system.slice/-" + outer + ".scope", none},
		{"a scope that is only an id", "/system.slice/" + outer + ".scope", none},
		{"a scope in a scope's name", "/system.slice/docker-" + outer + ".scope.scope", none},
		{"one colon", "/system.slice:" + outer, none},
		{"three colons", "/system.slice:docker:x:" + outer, none},
		{"colons after what is no slice", "/system.service:docker:" + outer, none},
		{"an unknown prefix between colons", "/system.slice:conmon:" + outer, none},

		{"a pod's name outside of kubepods", "/system.slice/pod" + pod, none},
		{"a slice of a pod outside of kubepods", "/system.slice/system-pod" + podU + ".slice", none},
		{"a uid that was cut", "/kubepods/burstable/pod" + pod[:35], none},
		{"a uid with a digit that is none", "/kubepods/burstable/podz" + pod[1:], none},
		{"a uid with underscores in a directory", "/kubepods/burstable/pod" + podU, none},
		{"a slice whose last step begins otherwise", "/kubepods.slice/kubepods-xpod" + podU + ".slice", none},
		{"a directory's name with a slice's suffix", "/kubepods/pod" + pod + ".slice", none},
		{"a uid in a service", "/kubepods.slice/kubepods-pod" + podU + ".service", none},
	})
}
