// Package kubernetes_test checks deploy/kubernetes: the manifests and the chart by the types of Kubernetes
// and with the engines of Kustomize and Helm; and it runs the image in namespaces of its own, with what the
// manifest gives it. It must not need a cluster or a container engine.
package kubernetes_test

import (
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

const (
	root  = "../.."
	base  = root + "/deploy/kubernetes/base"
	chart = root + "/deploy/kubernetes/chart"
)

var update = flag.Bool("update", false, "write the chart")

func read(t *testing.T, path ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// objects has the objects of tcpshift, decoded into the types of Kubernetes.
type objects struct {
	namespace *corev1.Namespace
	account   corev1.ServiceAccount
	config    corev1.ConfigMap
	daemons   appsv1.DaemonSet
}

// parse reads documents of YAML. An unknown key, or one of a wrong type, fails the test.
func parse(t *testing.T, documents string) (o objects) {
	t.Helper()
	for document := range strings.SplitSeq(documents, "\n---\n") {
		var kind struct{ Kind string }
		if err := yaml.Unmarshal([]byte(document), &kind); err != nil {
			t.Fatalf("%v\n%s", err, document)
		}
		o.namespace = orNew(o.namespace, kind.Kind == "Namespace")
		into, ok := map[string]any{"Namespace": o.namespace, "ServiceAccount": &o.account, "ConfigMap": &o.config, "DaemonSet": &o.daemons}[kind.Kind]
		if !ok {
			t.Fatalf("an object of kind %q:\n%s", kind.Kind, document)
		}
		if err := yaml.UnmarshalStrict([]byte(document), into); err != nil {
			t.Errorf("%s: %v", kind.Kind, err)
		}
	}
	return o
}

// orNew returns n, or a new namespace if n is nil and wanted.
func orNew(n *corev1.Namespace, wanted bool) *corev1.Namespace {
	if n == nil && wanted {
		return &corev1.Namespace{}
	}
	return n
}

// kustomized returns the objects that kubectl apply -k creates, with these components.
func kustomized(t *testing.T, components ...string) objects {
	t.Helper()
	dir := base
	if len(components) > 0 {
		dir = overlay(t, components)
	}
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatal(err)
	}
	text, err := resources.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, string(text))
}

// overlay copies the manifests, adds components to the base, as kustomize edit add component does, and returns the
// base's copy.
func overlay(t *testing.T, components []string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(root+"/deploy/kubernetes")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "base/kustomization.yaml")
	text := read(t, path) + "components: [" + strings.Join(components, ", ") + "]\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(path)
}

// The manifests are objects of Kubernetes, and give the container the capabilities of the unit and no more.
func TestManifests_LeastPrivileges(t *testing.T) {
	o := kustomized(t)
	if o.namespace == nil || o.namespace.Name != o.daemons.Namespace || o.config.Namespace != o.daemons.Namespace {
		t.Errorf("the namespaces are %+v, %q and %q", o.namespace, o.daemons.Namespace, o.config.Namespace)
	}
	pod := o.daemons.Spec.Template.Spec
	if len(pod.Containers) != 1 || pod.HostNetwork || pod.HostIPC || !pod.HostPID || *pod.AutomountServiceAccountToken {
		t.Errorf("the pod may more, or less, than it must: %+v", pod)
	}
	security := pod.Containers[0].SecurityContext
	if *security.Privileged || *security.AllowPrivilegeEscalation || !*security.ReadOnlyRootFilesystem || !slices.Equal(security.Capabilities.Drop, []corev1.Capability{"ALL"}) {
		t.Errorf("the container may more than it must: %+v", security)
	}
	unit := regexp.MustCompile(`(?m)^CapabilityBoundingSet=(.*)$`).FindStringSubmatch(read(t, root, "deploy/systemd/tcpshift.service"))
	var want []corev1.Capability
	for _, name := range strings.Fields(unit[1]) {
		want = append(want, corev1.Capability(strings.TrimPrefix(name, "CAP_")))
	}
	if !slices.Equal(security.Capabilities.Add, want) {
		t.Errorf("the capabilities are %v, those of the unit %v", security.Capabilities.Add, want)
	}
	for _, v := range pod.Containers[0].VolumeMounts {
		if !v.ReadOnly {
			t.Errorf("%s may be written", v.MountPath)
		}
	}
	if name := pod.Volumes[0].ConfigMap.Name; name != o.config.Name {
		t.Errorf("the pod mounts the configuration %q, which is %q", name, o.config.Name)
	}
}

// engineState are the directories below which internal/workload finds the images of each engine, by the name of the
// component that mounts it.
var engineState = map[string]string{
	"containerd": "/run/containerd/io.containerd.runtime.v2.task/k8s.io",
	"cri-o":      "/run/containers/storage/overlay-containers",
}

// The base mounts no state of an engine, whose files have the environments of all containers. A component for each
// engine mounts the one directory that has the images, read-only, and changes nothing else.
func TestManifests_ImagesByChoice(t *testing.T) {
	plain := kustomized(t)
	for _, v := range plain.daemons.Spec.Template.Spec.Volumes {
		if v.HostPath != nil && !strings.HasPrefix(v.HostPath.Path, "/var/log/") {
			t.Errorf("the base mounts %s", v.HostPath.Path)
		}
	}
	lookup := read(t, root, "internal/workload/files.go")
	for name, dir := range engineState {
		if !strings.Contains(lookup, strings.TrimSuffix(dir[1:], "/k8s.io")) {
			t.Errorf("internal/workload does not read %s", dir)
		}
		got := kustomized(t, "../images/"+name)
		pod := &got.daemons.Spec.Template.Spec
		mounts := pod.Containers[0].VolumeMounts
		i := slices.IndexFunc(mounts, func(m corev1.VolumeMount) bool { return m.MountPath == dir })
		j := slices.IndexFunc(pod.Volumes, func(v corev1.Volume) bool { return v.HostPath != nil && v.HostPath.Path == dir })
		if i < 0 || j < 0 || mounts[i].Name != pod.Volumes[j].Name || !mounts[i].ReadOnly || *mounts[i].MountPropagation != corev1.MountPropagationHostToContainer {
			t.Errorf("%s does not mount %s: %+v, %+v", name, dir, mounts, pod.Volumes)
			continue
		}
		pod.Containers[0].VolumeMounts = slices.Delete(mounts, i, i+1)
		pod.Volumes = slices.Delete(pod.Volumes, j, j+1)
		if !reflect.DeepEqual(got, plain) {
			t.Errorf("with %s the objects are\n%+v\nwant\n%+v", name, got, plain)
		}
	}
}

// tcpshift config check accepts the configuration.
func TestManifests_Configuration(t *testing.T) {
	dir := t.TempDir()
	path, program := filepath.Join(dir, "config.yaml"), filepath.Join(dir, "tcpshift")
	if err := os.WriteFile(path, []byte(kustomized(t).config.Data["config.yaml"]), 0o600); err != nil {
		t.Fatal(err)
	}
	buildProgram(t, runtime.GOARCH, program)
	command(t, dir, nil, program, "config", "check", "--config", path)
}

// chartFiles returns the files of the chart that follow from the base.
func chartFiles(t *testing.T) map[string]string {
	t.Helper()
	const generated = "# Made from deploy/kubernetes/base by 'go test -run TestChart_Current -update' in test/kubernetes.\n"
	daemons := read(t, base, "daemonset.yaml")
	before, rest, _ := strings.Cut(daemons, "          resources:\n")
	resources, after, ok := strings.Cut(rest, "          securityContext:\n")
	if !ok {
		t.Fatal("daemonset.yaml has no resources before its securityContext")
	}
	daemons = before + "          resources: {{- toYaml .Values.resources | nindent 12 }}\n          securityContext:\n" + after
	daemons = strings.Replace(daemons, "          image: tcpshift\n", "          image: {{ .Values.image | quote }}\n", 1)
	daemons = strings.Replace(daemons, "        prometheus.io/port: \"9464\"\n",
		"        prometheus.io/port: \"9464\"\n        # A change of the configuration starts the pods again.\n        checksum/config: {{ .Values.config | sha256sum }}\n", 1)
	var values strings.Builder
	values.WriteString(generated + "image: tcpshift\nresources:\n")
	for line := range strings.Lines(resources) {
		values.WriteString(strings.TrimPrefix(line, strings.Repeat(" ", 10)))
	}
	values.WriteString("config: |\n")
	for line := range strings.Lines(read(t, base, "config.yaml")) {
		values.WriteString(strings.TrimRight("  "+line, " \n") + "\n")
	}
	return map[string]string{
		"values.yaml":                   values.String(),
		"templates/daemonset.yaml":      generated + daemons,
		"templates/serviceaccount.yaml": generated + read(t, base, "serviceaccount.yaml"),
		"templates/configmap.yaml": generated + `apiVersion: v1
kind: ConfigMap
metadata:
  name: tcpshift
  labels: {app.kubernetes.io/name: tcpshift}
data:
  config.yaml: |
    {{- .Values.config | nindent 4 }}
`,
	}
}

// The chart is made from the base.
func TestChart_Current(t *testing.T) {
	for name, want := range chartFiles(t) {
		path := filepath.Join(chart, name)
		if *update {
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if read(t, path) != want {
			t.Errorf("%s differs: run go -C test/kubernetes test -run TestChart_Current -update", path)
		}
	}
}

// rendered returns the objects that helm install creates with these values.
func rendered(t *testing.T, values map[string]any) objects {
	t.Helper()
	c, err := loader.Load(chart)
	if err != nil {
		t.Fatal(err)
	}
	merged, err := chartutil.ToRenderValues(c, values, chartutil.ReleaseOptions{Name: "tcpshift", Namespace: "monitoring"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	files, err := engine.Render(c, merged)
	if err != nil {
		t.Fatal(err)
	}
	var documents []string
	for _, text := range files {
		documents = append(documents, text)
	}
	return parse(t, strings.Join(documents, "\n---\n"))
}

// The chart creates what Kustomize creates, apart from names and the namespace.
func TestChart_SameObjects(t *testing.T) {
	want, got := kustomized(t), rendered(t, nil)
	if !reflect.DeepEqual(got.config.Data, want.config.Data) {
		t.Errorf("the configuration is\n%s\nwant\n%s", got.config.Data["config.yaml"], want.config.Data["config.yaml"])
	}
	if got.account.Name != want.account.Name || *got.account.AutomountServiceAccountToken {
		t.Errorf("the account is %+v", got.account)
	}
	delete(got.daemons.Spec.Template.Annotations, "checksum/config")
	want.daemons.Namespace = ""
	want.daemons.Spec.Template.Spec.Volumes[0].ConfigMap.Name = "tcpshift"
	if !reflect.DeepEqual(got.daemons, want.daemons) {
		t.Errorf("the chart creates\n%+v\nKustomize\n%+v", got.daemons, want.daemons)
	}
}

// Each value of the chart changes the objects.
func TestChart_Values(t *testing.T) {
	o := rendered(t, map[string]any{
		"image": "registry.example/tcpshift:1.2.3", "config": "stats-interval: 5m\n",
		"resources": map[string]any{"limits": map[string]any{"memory": "1Gi"}},
	})
	c := o.daemons.Spec.Template.Spec.Containers[0]
	if c.Image != "registry.example/tcpshift:1.2.3" || c.Resources.Limits.Memory().String() != "1Gi" || !strings.Contains(o.config.Data["config.yaml"], "stats-interval: 5m") {
		t.Errorf("image %q, limits %v, configuration %q", c.Image, c.Resources.Limits, o.config.Data["config.yaml"])
	}
}
