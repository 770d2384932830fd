// Package cgroup finds out from a cgroup's path which systemd unit, which container and
// which Kubernetes pod it belongs to.
//
// It knows only the names that container engines give to cgroups. It must not read
// files, ask an engine or guess: a path that no known engine makes has no container.
package cgroup

import (
	"strings"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Info is what is known from a cgroup's path. Unknown fields are empty.
type Info struct {
	Path string // as passed to Describe

	// Unit is the name, with its suffix, of the innermost service or scope of systemd that
	// contains the cgroup. A container's own scope does not count. A unit that contains a
	// container does not count either, because it is the engine's. The exception is the unit
	// of a Quadlet, in which Podman runs the container.
	Unit string

	// Container is the full id, 64 lower-case hex digits, of the innermost
	// container that contains the cgroup. A pod's sandbox ("pause") is a container.
	// A process that only monitors a container, such as conmon, is not in it.
	Container string

	// Runtime is the engine that made Container: docker, containerd, cri-o or
	// podman. It is empty for a bare id, as several engines name a cgroup, unless its
	// parent is docker.
	Runtime string

	// PodUID is the uid of the innermost Kubernetes pod that contains the cgroup: a
	// UUID with dashes or, for a static pod, the 32 hex digits that the kubelet
	// computes from its manifest (the mirror pod's annotation
	// kubernetes.io/config.hash).
	PodUID string

	// ContainerClaimed and UnitClaimed report that a user other than root may have chosen the
	// name from which Container, Runtime and PodUID, or Unit, follow.
	ContainerClaimed, UnitClaimed bool

	// The path does not show these; Cache.SetNames sets them.
	Pod, Namespace, ContainerName, Image string
}

// Describe reads a path of a v1 or v2 hierarchy from the root down; engines use equal
// names in both. A level with an unknown name changes nothing, so that the cgroups that
// a container makes itself (crun's "container", a systemd inside) are in the
// container. The innermost container wins.
//
// A user other than root may have chosen the last names, as many as claimed. Such a name may be that
// of the user's own container, or imitate another's. Below a container or pod of root these names
// show no other container or pod. They do not replace a unit of root's, except that of a login.
func Describe(path string, claimed int) Info {
	info := Info{Path: path}
	names := strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
	parent := ""
	for i, name := range names {
		info.descend(name, parent, i >= len(names)-claimed)
		parent = name
	}
	// Who keeps these must not keep the path, which may have 3 KiB.
	info.Container, info.PodUID, info.Unit = strings.Clone(info.Container), strings.Clone(info.PodUID), strings.Clone(info.Unit)
	return info
}

// descend adds what the next name of the path shows.
func (i *Info) descend(name, parent string, claimed bool) {
	isTrusted := (i.Container != "" || i.PodUID != "") && !i.ContainerClaimed
	if uid := podUID(name, parent); uid != "" && (!claimed || !isTrusted) {
		i.PodUID, i.ContainerClaimed = uid, claimed
	}
	id, runtime := container(name, parent)
	switch {
	case id != "" && claimed && isTrusted:
	case id != "":
		i.Container, i.Runtime, i.ContainerClaimed = id, runtime, claimed
		if !strings.HasPrefix(name, "libpod-payload-") {
			i.setUnit("", claimed)
		}
	case isUnit(unescape(name)):
		i.setUnit(unescape(name), claimed)
	}
}

// setUnit sets the unit, which is "" in a container. A claimed name does not replace one of root's.
func (i *Info) setUnit(name string, claimed bool) {
	if !claimed || !i.hasTrustedUnit() {
		i.Unit, i.UnitClaimed = name, claimed && name != ""
	}
}

// hasTrustedUnit reports whether root has chosen the unit's name, and it says what runs in it.
func (i *Info) hasTrustedUnit() bool {
	return i.Unit != "" && !i.UnitClaimed && !tcp.IsLoginUnit(i.Unit)
}

// unescape removes the underscore that systemd puts before the name of a cgroup that would look
// like a file of the kernel's, such as _cpu.service: cg_unescape() in its src/basic/cgroup-util.c.
func unescape(name string) string { return strings.TrimPrefix(name, "_") }

// isUnit reports whether systemd may have made a cgroup of this name for a service or a
// scope: VALID_CHARS and UNIT_NAME_MAX of its src/basic/unit-name.c. A name with any other
// byte is that of another program. A systemd, which may be inside of a container, makes
// init.scope for itself.
func isUnit(name string) bool {
	const maxLength = 255
	prefix, service := strings.CutSuffix(name, ".service")
	if !service {
		var scope bool
		if prefix, scope = strings.CutSuffix(name, ".scope"); !scope {
			return false
		}
	}
	for i := range len(prefix) {
		c := prefix[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && !strings.ContainsRune(`:-_.\@`, rune(c)) {
			return false
		}
	}
	return prefix != "" && len(name) <= maxLength && name != "init.scope"
}

// container finds the id in the name of one cgroup. The name depends on what the engine
// passes to the OCI runtime in linux.cgroupsPath (left), and on how the runtime reads it:
//
//	/parent/ID            cgroupfs driver                 ID
//	NAME.slice:PREFIX:ID  systemd driver                  PREFIX-ID.scope
//	NAME.slice:PREFIX:ID  as a path (it has no slash)     NAME.slice:PREFIX:ID
//
// The last form comes from a kubelet with the systemd driver and a runtime without it.
func container(name, parent string) (id, runtime string) {
	if isID(name) {
		return bareID(name, parent)
	}
	if prefix, id, ok := cutOCIPath(name); ok {
		return prefixedID(prefix, id)
	}
	name = strings.TrimSuffix(name, ".scope")
	if dash := strings.LastIndexByte(name, '-'); dash > 0 {
		return prefixedID(name[:dash], name[dash+1:])
	}
	return "", ""
}

// bareID is for a name that is an id: Docker uses it below its default parent, and any
// engine below a pod or a parent that the user has chosen. Podman names its containers
// otherwise; below its default parent a bare id is that of a Podman pod.
func bareID(id, parent string) (container, runtime string) {
	switch parent {
	case "docker":
		return id, "docker"
	case "libpod_parent":
		return "", ""
	}
	return id, ""
}

// prefixedID compares the whole prefix, because crio-conmon and libpod-conmon are
// monitors, with the id of their container in the name. Units of systemd (podman
// generate systemd, health checks) have such ids as well, but their suffix stays in id,
// which isID then rejects.
func prefixedID(prefix, id string) (container, runtime string) {
	if !isID(id) {
		return "", "" // such as a BuildKit step, whose id has 25 letters and digits
	}
	switch prefix {
	case "docker":
		return id, "docker"
	case "cri-containerd", "nerdctl":
		return id, "containerd"
	case "crio":
		return id, "cri-o"
	case "libpod", "libpod-payload": // payload: --cgroups=split, which Quadlet uses
		return id, "podman"
	}
	return "", ""
}

// cutOCIPath cuts NAME.slice:PREFIX:ID. nerdctl may leave the slice empty.
func cutOCIPath(name string) (prefix, id string, ok bool) {
	slice, rest, ok := strings.Cut(name, ":")
	if !ok || slice != "" && !strings.HasSuffix(slice, ".slice") {
		return "", "", false
	}
	return strings.Cut(rest, ":")
}

func isID(s string) bool {
	return len(s) == 64 && isHex(s)
}

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
