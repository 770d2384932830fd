package workload

import (
	"bytes"
	"encoding/json"
	"path"
	"strings"

	"github.com/tcpshift/tcpshift/internal/cgroup"
	"github.com/tcpshift/tcpshift/internal/safeopen"
)

const (
	maxFile  = 1 << 20  // bytes; an OCI configuration mostly has 10 to 60 KiB
	maxStore = 16 << 20 // bytes of Podman's list of all containers
	maxList  = 1 << 14  // names in a directory
)

// Files finds names in the files of a node.
type Files struct {
	Root string // of the file system, "/"
}

// Lookup finds the names of a container or a pod. It reports false if no file has any. A name that is longer
// than maxName, or an image longer than maxImage, is left out.
func (f Files) Lookup(k Key) (n cgroup.Names, found bool) {
	if k.Container != "" {
		for _, source := range f.sources(k) {
			if n = source(k); n != (cgroup.Names{}) {
				break
			}
		}
	}
	if k.PodUID != "" && n.Pod == "" {
		n = f.kubelet(k, n)
	}
	for _, name := range []*string{&n.Pod, &n.Namespace, &n.Container} {
		if len(*name) > maxName {
			*name = ""
		}
	}
	if len(n.Image) > maxImage {
		n.Image = ""
	}
	return n, n != (cgroup.Names{})
}

const (
	maxName  = 253 // bytes of a name: that of a pod in Kubernetes
	maxImage = 255 // bytes of an image, as the longest record has room for
)

// sources are the functions that read the files of an engine. An id without an engine may be of any engine.
func (f Files) sources(k Key) []func(Key) cgroup.Names {
	switch k.Runtime {
	case "containerd":
		return []func(Key) cgroup.Names{f.containerd}
	case "cri-o":
		return []func(Key) cgroup.Names{f.crio}
	case "docker":
		return []func(Key) cgroup.Names{f.docker}
	case "podman":
		return []func(Key) cgroup.Names{f.podman}
	}
	return []func(Key) cgroup.Names{f.containerd, f.crio, f.docker, f.podman}
}

// read decodes a JSON file into v, and reports whether it could.
func (f Files) read(v any, maxBytes int64, parts ...string) bool {
	b, err := safeopen.ReadFileUpTo(path.Join(append([]string{f.Root}, parts...)...), maxBytes)
	return err == nil && json.NewDecoder(bytes.NewReader(b)).Decode(v) == nil
}

// annotations are those of an OCI runtime configuration.
func (f Files) annotations(parts ...string) map[string]string {
	var spec struct {
		Annotations map[string]string `json:"annotations"`
	}
	f.read(&spec, maxFile, parts...)
	return spec.Annotations
}

// containerd reads the bundle that its shim keeps while the container runs. The names of a pod's
// containers are in the namespace k8s.io; nerdctl's own are in default.
func (f Files) containerd(k Key) cgroup.Names {
	const bundles = "run/containerd/io.containerd.runtime.v2.task"
	if a := f.annotations(bundles, "k8s.io", k.Container, "config.json"); a != nil {
		const prefix = "io.kubernetes.cri."
		return cgroup.Names{
			Pod: a[prefix+"sandbox-name"], Namespace: a[prefix+"sandbox-namespace"],
			Container: a[prefix+"container-name"], Image: a[prefix+"image-name"],
		}
	}
	a := f.annotations(bundles, "default", k.Container, "config.json")
	return cgroup.Names{Container: a["nerdctl/name"]}
}

// The labels that the kubelet gives to each container.
const (
	labelContainer = "io.kubernetes.container.name"
	labelPod       = "io.kubernetes.pod.name"
	labelNamespace = "io.kubernetes.pod.namespace"
)

// crio reads the configuration that CRI-O writes for the OCI runtime. The labels of the kubelet
// stand in one annotation, as JSON. The container of a sandbox is called POD there.
func (f Files) crio(k Key) cgroup.Names {
	a := f.annotations("run/containers/storage/overlay-containers", k.Container, "userdata/config.json")
	const prefix = "io.kubernetes.cri-o."
	var labels map[string]string
	if json.Unmarshal([]byte(a[prefix+"Labels"]), &labels) != nil || labels[labelPod] == "" {
		return cgroup.Names{}
	}
	n := cgroup.Names{Pod: labels[labelPod], Namespace: labels[labelNamespace], Container: labels[labelContainer]}
	if a[prefix+"ContainerType"] == "sandbox" {
		n.Container = ""
	} else {
		n.Image = a[prefix+"ImageName"]
	}
	return n
}

// docker reads the state of the daemon. In a pod (cri-dockerd) the kubelet's labels have the names.
func (f Files) docker(k Key) cgroup.Names {
	var state struct {
		Name   string
		Config struct {
			Image  string
			Labels map[string]string
		}
	}
	if !f.read(&state, maxFile, "var/lib/docker/containers", k.Container, "config.v2.json") {
		return cgroup.Names{}
	}
	labels := state.Config.Labels
	n := cgroup.Names{Container: strings.TrimPrefix(state.Name, "/"), Image: state.Config.Image}
	if pod := labels[labelPod]; pod != "" {
		n.Pod, n.Namespace, n.Container = pod, labels[labelNamespace], labels[labelContainer]
	}
	return n
}

// podman reads the two lists of containers in root's storage. The second one has the containers that are
// removed when they end (podman run --rm).
func (f Files) podman(k Key) cgroup.Names {
	for _, list := range []string{"containers.json", "volatile-containers.json"} {
		var containers []struct {
			ID       string   `json:"id"`
			Names    []string `json:"names"`
			Metadata string   `json:"metadata"` // JSON
		}
		f.read(&containers, maxStore, "var/lib/containers/storage/overlay-containers", list)
		for _, c := range containers {
			if c.ID == k.Container && len(c.Names) > 0 {
				var metadata struct {
					Image string `json:"image-name"`
				}
				_ = json.Unmarshal([]byte(c.Metadata), &metadata)
				return cgroup.Names{Container: c.Names[0], Image: metadata.Image}
			}
		}
	}
	return cgroup.Names{}
}

// kubelet takes names from the names of the kubelet's log files, and adds them to n:
// /var/log/containers/POD_NAMESPACE_CONTAINER-ID.log and /var/log/pods/NAMESPACE_POD_UID.
func (f Files) kubelet(k Key, n cgroup.Names) cgroup.Names {
	if k.Container != "" {
		for _, name := range f.list("var/log/containers") {
			rest, isLog := strings.CutSuffix(name, "-"+k.Container+".log")
			if parts := strings.Split(rest, "_"); isLog && len(parts) == 3 {
				n.Pod, n.Namespace, n.Container = parts[0], parts[1], parts[2]
				return n
			}
		}
	}
	for _, name := range f.list("var/log/pods") {
		rest, isPod := strings.CutSuffix(name, "_"+k.PodUID)
		if parts := strings.Split(rest, "_"); isPod && len(parts) == 2 {
			n.Namespace, n.Pod = parts[0], parts[1]
			return n
		}
	}
	return n
}

func (f Files) list(directory string) []string {
	names, _ := safeopen.DirNames(path.Join(f.Root, directory), maxList)
	return names
}
