// Package cgroup tells from a cgroup's path which container and which
// Kubernetes pod it belongs to.
//
// It knows the names that container engines give to cgroups, and nothing else.
// It must not read files, ask an engine or guess: a path that no known engine
// makes has no container.
package cgroup

import "strings"

// Info is what a cgroup's path tells. Fields that it does not tell are empty.
type Info struct {
	Path string // as it was given

	// Container is the full id, 64 lower-case hex digits, of the innermost
	// container around the cgroup. A pod's sandbox ("pause") counts as one. What
	// only watches over a container, such as conmon, is not in it.
	Container string

	// Runtime is docker, containerd, cri-o or podman: what made Container. It is
	// empty where the cgroup's name is the bare id, which several of them do.
	Runtime string

	// PodUID is the innermost Kubernetes pod around the cgroup: a UUID with
	// dashes or, for a static pod, the 32 hex digits that the kubelet made from
	// its manifest (the mirror pod's annotation kubernetes.io/config.hash).
	PodUID string
}

// Describe reads a path from the root down, of a v1 or a v2 hierarchy: engines
// give the same names in both. A level that means nothing here leaves standing
// what is above it, so that a container's own cgroups (crun's "container", a
// systemd inside) are in the container, and the innermost container wins.
func Describe(path string) Info {
	info := Info{Path: path}
	parent := ""
	for rest, more := path, true; more; {
		var name string
		name, rest, more = strings.Cut(rest, "/")
		if name == "" {
			continue
		}
		if uid := podUID(name, parent); uid != "" {
			info.PodUID = uid
		}
		if id, runtime := container(name, parent); id != "" {
			info.Container, info.Runtime = id, runtime
		}
		parent = name
	}
	return info
}

// container finds the id in the name of one cgroup. Such a name has one of three
// forms, by what the engine asks of the OCI runtime in linux.cgroupsPath, and
// how the latter takes it:
//
//	/parent/ID            cgroupfs driver                   ID
//	NAME.slice:PREFIX:ID  systemd driver                    PREFIX-ID.scope
//	NAME.slice:PREFIX:ID  taken as a path, having no slash  NAME.slice:PREFIX:ID
//
// The last comes from a kubelet with the systemd driver over a runtime without.
func container(name, parent string) (id, runtime string) {
	if isID(name) {
		return bare(name, parent)
	}
	if prefix, id, ok := cutOCIPath(name); ok {
		return known(prefix, id)
	}
	name = strings.TrimSuffix(name, ".scope")
	if dash := strings.LastIndexByte(name, '-'); dash > 0 {
		return known(name[:dash], name[dash+1:])
	}
	return "", ""
}

// bare takes a name that is an id: of Docker under its default parent, and of any
// engine under a pod or a parent of the user's choice. Podman names its
// containers otherwise; in its default parent the bare id is a Podman pod's.
func bare(id, parent string) (container, runtime string) {
	switch parent {
	case "docker":
		return id, "docker"
	case "libpod_parent":
		return "", ""
	}
	return id, ""
}

// known takes the prefix as a whole: crio-conmon and libpod-conmon are monitors,
// which have the id of the container that they watch in their names. So have
// units of systemd (podman generate systemd, health checks), whose suffix stays
// on the id and spoils it.
func known(prefix, id string) (container, runtime string) {
	if !isID(id) {
		return "", "" // BuildKit's steps have ids too, of 25 letters and digits
	}
	switch prefix {
	case "docker":
		return id, "docker"
	case "cri-containerd", "nerdctl":
		return id, "containerd"
	case "crio":
		return id, "cri-o"
	case "libpod", "libpod-payload": // payload: --cgroups=split, as Quadlet has it
		return id, "podman"
	}
	return "", ""
}

// cutOCIPath cuts NAME.slice:PREFIX:ID; the slice may be left out (nerdctl).
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
