package kubernetes_test

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// command runs a program in the directory dir, with variables added to the environment. It fails the test if the program
// fails.
func command(t *testing.T, dir string, env []string, name string, arguments ...string) {
	t.Helper()
	c := exec.Command(name, arguments...)
	c.Dir, c.Env = dir, append(os.Environ(), env...)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, arguments, err, out)
	}
}

// buildProgram builds tcpshift for an architecture with the flags of make packages, so that Go's cache has most of it.
func buildProgram(t *testing.T, arch, path string) {
	t.Helper()
	command(t, root, []string{"CGO_ENABLED=0", "GOARCH=" + arch}, "go", "build", "-trimpath", "-buildvcs=false", "-o", path, "./cmd/tcpshift")
}

// buildImage builds the programs and the image, and returns the image's layout.
func buildImage(t *testing.T) (path string) {
	t.Helper()
	dist := t.TempDir()
	for _, arch := range []string{"amd64", "arm64"} {
		buildProgram(t, arch, filepath.Join(dist, "tcpshift-linux-"+arch))
	}
	path = filepath.Join(dist, "image")
	again := path + "-again"
	for _, to := range []string{path, again} {
		command(t, root+"/deploy/image", []string{"SOURCE_DATE_EPOCH=1000000000"}, "go", "run", ".", "1.2.3", dist, to)
	}
	// The list of images has the digests of all that is in them.
	if one, other := read(t, path, "index.json"), read(t, again, "index.json"); one != other {
		t.Errorf("equal programs give two images:\n%s\n%s", one, other)
	}
	return path
}

// index returns the list of images in a layout.
func index(t *testing.T, path string) v1.ImageIndex {
	t.Helper()
	l, err := layout.FromPath(path)
	if err != nil {
		t.Fatal(err)
	}
	outer, err := l.ImageIndex()
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := outer.IndexManifest()
	if err != nil || len(manifest.Manifests) != 1 || manifest.Manifests[0].Annotations["org.opencontainers.image.ref.name"] != "1.2.3" {
		t.Fatalf("the layout has no image 1.2.3: %v: %+v", err, manifest)
	}
	inner, err := outer.ImageIndex(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	return inner
}

// checkImage checks that the image is a correct OCI layout with both architectures and the entry point of
// the Containerfile. It returns the image for this machine.
func checkImage(t *testing.T, images v1.ImageIndex) v1.Image {
	t.Helper()
	if err := validate.Index(images); err != nil {
		t.Error(err)
	}
	manifest, err := images.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	containerfile := read(t, root, "deploy/kubernetes/Containerfile")
	var mine v1.Image
	var arches []string
	for _, d := range manifest.Manifests {
		arches = append(arches, d.Platform.String())
		image, err := images.Image(d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		config, err := image.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		for instruction, has := range map[string][]string{"ENTRYPOINT": config.Config.Entrypoint, "CMD": config.Config.Cmd} {
			list, err := json.Marshal(has)
			if err != nil || !strings.Contains(containerfile, "\n"+instruction+" "+string(list)+"\n") {
				t.Errorf("%v: %s is %s, other than in the Containerfile: %v", d.Platform, instruction, list, err)
			}
		}
		if d.Platform.Architecture == runtime.GOARCH {
			mine = image
		}
	}
	if !reflect.DeepEqual(arches, []string{"linux/amd64", "linux/arm64"}) {
		t.Errorf("the image is for %v", arches)
	}
	return mine
}

// unpack writes the files of an image into a directory.
func unpack(t *testing.T, image v1.Image, dir string) {
	t.Helper()
	stream := mutate.Extract(image)
	defer stream.Close()
	files := tar.NewReader(stream)
	for {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, h.Name)
		if h.Typeflag == tar.TypeDir {
			err = os.MkdirAll(path, 0o755)
		} else {
			var content []byte
			if content, err = io.ReadAll(files); err == nil {
				err = os.WriteFile(path, content, h.FileInfo().Mode())
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
