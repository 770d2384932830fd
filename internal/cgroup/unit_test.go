package cgroup

import (
	"strings"
	"testing"
)

// The unit is the innermost service or scope of systemd. A container's scope is none, nor is
// the unit of the engine that contains it; the unit of a Quadlet is.
func TestDescribe_Units(t *testing.T) {
	const kubepods = "/kubepods.slice/kubepods-pod" + podU + ".slice/"
	long := strings.Repeat("x", 247) + ".service"
	for _, tt := range []struct{ path, want string }{
		{"/system.slice/nginx.service", "nginx.service"},
		{"/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service"},
		{"/system.slice/php8.2-fpm.service/worker", "php8.2-fpm.service"},
		{`/machine.slice/machine-qemu\x2d1\x2dweb.scope/libvirt/emulator`, `machine-qemu\x2d1\x2dweb.scope`},
		{user + "/app.slice/redis.service", "redis.service"},
		{user + "/user.slice/podman-239302.scope", "podman-239302.scope"},
		{"/user.slice/user-1000.slice/session-3.scope", "session-3.scope"},
		{"/init.scope", ""},
		{"/system.slice/" + long, long},

		{"/system.slice/nginx.service/libpod-payload-" + outer, "nginx.service"},
		{"/docker/" + outer + "/system.slice/nginx.service", "nginx.service"},
		{"/system.slice/docker-" + outer + ".scope/kubelet.slice/kubelet.service", "kubelet.service"},

		{"/system.slice/docker-" + outer + ".scope", ""},
		{"/system.slice/docker-" + outer + ".scope/init", ""},
		{user + "/user.slice/docker-" + outer + ".scope", ""},
		{"/system.slice/containerd.service/kubepods-besteffort-pod" + podU + ".slice:cri-containerd:" + outer, ""},
		{kubepods + "cri-containerd-" + outer + ".scope", ""},
		{"/system.slice", ""},
		{"/", ""},
		{"/system.slice/run-rootfs.mount", ""},
		{"/a/.service", ""},
		{"/a/x" + long, ""},
		{"/a/b\x1b[31m.service", ""},
		{"/a/b c.service", ""},
		{"/a/b\xff.scope", ""},
	} {
		if got := Describe(tt.path, 0).Unit; got != tt.want {
			t.Errorf("%q is in %q, want %q", tt.path, got, tt.want)
		}
	}
}
