// Command image makes the container image of tcpshift for amd64 and arm64, as an OCI image layout, from the
// static programs of make packages: the image of deploy/kubernetes/Containerfile, without a container
// engine. Equal programs give equal bytes. It must not push anything.
package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const program = "usr/bin/tcpshift"

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: image VERSION DIRECTORY-WITH-PROGRAMS LAYOUT")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(version, dist, target string) error {
	created, err := epoch()
	if err != nil {
		return err
	}
	var index v1.ImageIndex = empty.Index
	for _, arch := range []string{"amd64", "arm64"} {
		binary, err := os.ReadFile(filepath.Join(dist, "tcpshift-linux-"+arch))
		if errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%w: run make packages first", err)
		}
		if err != nil {
			return err
		}
		image, err := imageOf(binary, version, arch, created)
		if err != nil {
			return err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        image,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
	}
	if err := os.RemoveAll(target); err != nil {
		return err
	}
	path, err := layout.Write(target, empty.Index)
	if err != nil {
		return err
	}
	return path.AppendIndex(index, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": version}))
}

// epoch returns the time of everything in the image: SOURCE_DATE_EPOCH, or 1970.
func epoch() (time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		return time.Unix(0, 0).UTC(), nil
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// imageOf returns the image with a program in its only layer.
func imageOf(binary []byte, version, arch string, created time.Time) (v1.Image, error) {
	files, err := archive(binary, created)
	if err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files)), nil }
	layer, err := tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	if image, err = mutate.Append(image, mutate.Addendum{
		Layer:   layer,
		History: v1.History{Created: v1.Time{Time: created}, CreatedBy: "COPY tcpshift-linux-" + arch + " /" + program},
	}); err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = "linux", arch, v1.Time{Time: created}
	config.Config = v1.Config{
		Entrypoint: []string{"/" + program},
		Cmd:        []string{"trace"},
		Env:        []string{"PATH=/usr/bin"},
		WorkingDir: "/",
		Labels: map[string]string{
			"org.opencontainers.image.title":    "tcpshift",
			"org.opencontainers.image.version":  version,
			"org.opencontainers.image.source":   "https://github.com/tcpshift/tcpshift",
			"org.opencontainers.image.licenses": "Apache-2.0",
		},
	}
	return mutate.ConfigFile(image, config)
}

// archive returns a tar archive with the program.
func archive(binary []byte, modified time.Time) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeDir, Name: "usr/", Mode: 0o755},
		{Typeflag: tar.TypeDir, Name: "usr/bin/", Mode: 0o755},
		{Typeflag: tar.TypeReg, Name: program, Mode: 0o755, Size: int64(len(binary))},
	} {
		h.ModTime = modified
		if err := w.WriteHeader(&h); err != nil {
			return nil, err
		}
	}
	if _, err := w.Write(binary); err != nil {
		return nil, err
	}
	err := w.Close()
	return b.Bytes(), err
}
