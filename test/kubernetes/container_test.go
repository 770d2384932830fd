package kubernetes_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// A pod beside the container, as containerd and the kubelet name it.
const (
	podUID      = "11111111-2222-3333-4444-555555555555"
	containerID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	podCgroup   = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod11111111_2222_3333_4444_555555555555.slice/cri-containerd-" + containerID + ".scope"
)

// The image runs in namespaces of its own, with only what the manifest gives the container, and without the system calls
// that the default profile of container runtimes refuses. It traces the node, answers the probes, and finds the name of
// the pod beside it.
func TestContainer_NamesPod(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("needs root, for namespaces")
	}
	o := kustomized(t)
	spec := o.daemons.Spec.Template.Spec
	image := checkImage(t, index(t, buildImage(t)))
	c := containerOf(t, spec, o.config.Data["config.yaml"])
	unpack(t, image, c.Root)
	config, err := image.ConfigFile()
	if err != nil || config.Config.Entrypoint[0] != "/usr/bin/tcpshift" {
		t.Fatal(err, config.Config.Entrypoint)
	}
	if profile := spec.Containers[0].SecurityContext.SeccompProfile; profile == nil || profile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("the seccomp profile is %v, want that of the runtime, which this test applies", profile)
	}
	records, pid := start(t, c)
	first := next(t, records, func(r record) bool { return r.Type == "start" })
	if first.Node != "node-a" {
		t.Errorf("the records have the node %q", first.Node)
	}
	// hostPID and the capabilities are enough for these features.
	for _, feature := range []string{"socket_scan", "host_pids", "other_namespaces", "sandbox_seccomp"} {
		if first.Features[feature] != true {
			t.Errorf("the container has no %s: %v", feature, first.Features[feature])
		}
	}
	checkCapabilities(t, pid, c.Capabilities)
	for _, probe := range []*corev1.Probe{spec.Containers[0].ReadinessProbe, spec.Containers[0].LivenessProbe, spec.Containers[0].StartupProbe} {
		ask(t, pid, probe.HTTPGet.Path)
	}
	// The client's end: the connection's record names the pod, not tcpshift's own container. The first
	// connection makes tcpshift look for the names, so that a later one has them.
	connect := pod(t)
	var ended record
	began := time.Now()
	for ended.Pod == "" {
		connect()
		ended = next(t, records, func(r record) bool { return r.Type == "connection" && r.Role == "client" && r.PeerPort == 8080 })
		if time.Since(began) > waitLimit {
			t.Fatalf("no name of the pod within %v: %+v", waitLimit, ended)
		}
	}
	want := record{Type: "connection", Role: "client", PeerPort: 8080, Node: "node-a", PodUID: podUID, Container: containerID,
		Runtime: "containerd", Pod: "web-7d4b9", Namespace: "shop", ContainerName: "nginx"}
	if !reflect.DeepEqual(ended, want) {
		t.Errorf("got  %+v\nwant %+v", ended, want)
	}
}

// waitLimit bounds every wait. On an idle machine a wait takes milliseconds.
const waitLimit = 2 * time.Minute

type record struct {
	Type, Role, Node, Container, Pod, Namespace string
	PeerPort                                    int    `json:"peer_port"`
	Runtime                                     string `json:"container_runtime"`
	PodUID                                      string `json:"pod_uid"`
	ContainerName                               string `json:"container_name"`
	Features                                    map[string]any
}

// containerOf returns the container of the manifest. Directories of the test stand for those of the node.
func containerOf(t *testing.T, spec corev1.PodSpec, config string) container {
	t.Helper()
	node, of := t.TempDir(), spec.Containers[0]
	// Connections, too: an alert needs a storm.
	config = strings.Replace(config, "only: [alert, ", "only: [connection, alert, ", 1)
	for path, text := range map[string]string{
		"config/config.yaml":                                      config,
		"pods/shop_web-7d4b9_" + podUID + "/nginx/0.log":          "",
		"containers/web-7d4b9_shop_nginx-" + containerID + ".log": "",
	} {
		path = filepath.Join(node, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	c := container{Root: t.TempDir(), Arguments: of.Args, Env: []string{"PATH=/usr/bin"}}
	for _, m := range of.VolumeMounts {
		c.Mounts = append(c.Mounts, [2]string{filepath.Join(node, m.Name), m.MountPath})
	}
	for _, name := range of.SecurityContext.Capabilities.Add {
		c.Capabilities = append(c.Capabilities, string(name))
	}
	for _, e := range of.Env {
		value := strings.ReplaceAll(e.Value, "$(NODE_NAME)", "node-a")
		if e.ValueFrom != nil {
			value = map[string]string{"spec.nodeName": "node-a"}[e.ValueFrom.FieldRef.FieldPath]
		}
		c.Env = append(c.Env, e.Name+"="+value)
	}
	return c
}

// start starts the container, and returns its records and its process.
func start(t *testing.T, c container) (records <-chan record, pid int) {
	t.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	process := exec.Command("/proc/self/exe")
	process.Env = append(os.Environ(), containerEnv+"="+string(text))
	process.Stderr = os.Stderr
	process.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP,
	}
	output, err := process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	all := make(chan record, 10000)
	t.Cleanup(func() {
		_ = process.Process.Signal(syscall.SIGTERM)
		for range all {
		}
		if err := process.Wait(); err != nil {
			t.Errorf("the container: %v", err)
		}
	})
	go func() {
		defer close(all)
		for lines := bufio.NewScanner(output); lines.Scan(); {
			var r record
			if err := json.Unmarshal(lines.Bytes(), &r); err == nil {
				all <- r
			}
		}
	}()
	return all, process.Process.Pid
}

// next waits for a record for which is returns true, and returns it. It skips other records.
func next(t *testing.T, records <-chan record, is func(record) bool) record {
	t.Helper()
	late := time.After(waitLimit)
	for {
		select {
		case r, ok := <-records:
			if !ok {
				t.Fatal("the container has ended")
			}
			if is(r) {
				return r
			}
		case <-late:
			t.Fatalf("no such record within %v", waitLimit)
		}
	}
}

// checkCapabilities checks that a process has, and can get, no capabilities but these.
func checkCapabilities(t *testing.T, pid int, names []string) {
	t.Helper()
	var want uint64
	for _, name := range names {
		want |= 1 << capabilities[name]
	}
	status := read(t, fmt.Sprintf("/proc/%d/status", pid))
	for _, line := range strings.Split(status, "\n") {
		name, value, _ := strings.Cut(line, ":\t")
		var mask uint64
		if !slices.Contains([]string{"CapBnd", "CapPrm", "CapEff"}, name) {
			continue
		}
		if _, err := fmt.Sscanf(value, "%x", &mask); err != nil || mask&^want != 0 {
			t.Errorf("%s: the process may have %x, the manifest gives %x", line, mask, want)
		}
	}
}

// ask sends a probe, which must have the status 200. It does so from the container's network namespace, because the
// container has only the loopback address here.
func ask(t *testing.T, pid int, path string) {
	t.Helper()
	answered := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine, in the other namespace
		answered <- func() error {
			ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
			if err != nil {
				return err
			}
			defer ns.Close()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return err
			}
			connection, err := net.Dial("tcp", "127.0.0.1:9464")
			if err != nil {
				return err
			}
			defer connection.Close()
			fmt.Fprintf(connection, "GET %s HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n", path)
			response, err := http.ReadResponse(bufio.NewReader(connection), nil)
			if err != nil {
				return err
			}
			defer response.Body.Close()
			if response.StatusCode != http.StatusOK {
				return fmt.Errorf("%s: %s", path, response.Status)
			}
			return nil
		}()
	}()
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

// pod runs a process in the cgroup of a pod, in each hierarchy that distinguishes containers here. It returns a
// function that makes the process open and close a connection.
func pod(t *testing.T) (connect func()) {
	t.Helper()
	var dirs []string
	for _, hierarchy := range []string{"/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/cpu", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		if _, err := os.Stat(filepath.Join(hierarchy, "cgroup.procs")); err != nil {
			continue
		}
		dir := hierarchy
		for level := range strings.SplitSeq(podCgroup, "/") {
			dir = filepath.Join(dir, level)
			made := dir
			if err := os.Mkdir(dir, 0o755); err == nil {
				t.Cleanup(func() { _ = os.Remove(made) })
			} else if !errors.Is(err, os.ErrExist) {
				t.Fatal(err)
			}
		}
		dirs = append(dirs, dir)
	}
	process := exec.Command("/proc/self/exe")
	process.Env = append(os.Environ(), podEnv+"="+strings.Join(dirs, "\n"))
	process.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	process.Stderr = os.Stderr
	input, err := process.StdinPipe()
	if err == nil {
		err = process.Start()
	}
	if err != nil || len(dirs) == 0 {
		t.Fatalf("the pod, in the cgroups %q: %v", dirs, err)
	}
	t.Cleanup(func() {
		_ = input.Close()
		if err := process.Wait(); err != nil {
			t.Errorf("the pod: %v", err)
		}
	})
	return func() {
		if _, err := input.Write([]byte{0}); err != nil {
			t.Fatalf("the pod: %v", err)
		}
	}
}
