package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// cache keeps fetched files between runs.
type cache struct {
	dir string

	mu   sync.Mutex // one apt at a time
	apts map[string]*apt
	errs map[string]error
}

func newCache(dir string) *cache {
	return &cache{dir: dir, apts: map[string]*apt{}, errs: map[string]error{}}
}

// kernel is the image of a kernel in the cache, and its package.
type kernel struct {
	Package pkg
	File    string // its name in the directory of its column
	SHA256  string // of the file
	path    string
}

// kernel returns the newest kernel of the column. It comes from the cache if it is
// there and its digest is right.
func (c *cache) kernel(col column) (kernel, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	cached, cachedErr := c.cached(col)
	a, err := c.apt(suites[col.version], col.arch)
	if err != nil {
		if cachedErr == nil {
			fmt.Fprintf(os.Stderr, "kernelmatrix: %v: taking %s from the cache: %v\n", col, cached.Package.Name, err)
			return cached, nil
		}
		return kernel{}, err
	}
	packages, err := a.packages(isKernel)
	if err != nil {
		return kernel{}, err
	}
	want, err := newest(packages, col)
	if err != nil {
		return kernel{}, err
	}
	if cachedErr == nil && cached.Package == want {
		return cached, nil
	}
	if cachedErr != nil && !errors.Is(cachedErr, os.ErrNotExist) {
		fmt.Fprintf(os.Stderr, "kernelmatrix: %v: fetching again: %v\n", col, cachedErr)
	}
	return c.fetch(a, col, want)
}

func isKernel(name string) bool {
	return strings.HasPrefix(name, "linux-image-") || strings.HasPrefix(name, "linux-binary-")
}

// apt returns the package client for a suite and an architecture, which it makes once.
func (c *cache) apt(suite, arch string) (*apt, error) {
	name := suite + "-" + arch
	if _, tried := c.apts[name]; !tried {
		c.apts[name], c.errs[name] = newApt(filepath.Join(c.dir, "apt", name), []string{suite}, arch, true)
	}
	return c.apts[name], c.errs[name]
}

func (c *cache) columnDir(col column) string {
	return filepath.Join(c.dir, "kernels", col.version+"-"+col.arch)
}

const recordName = "kernel.json"

// cached returns the kernel of the column if it is in the cache with the right digest.
func (c *cache) cached(col column) (kernel, error) {
	dir := c.columnDir(col)
	text, err := os.ReadFile(filepath.Join(dir, recordName))
	if err != nil {
		return kernel{}, err
	}
	var k kernel
	if err := json.Unmarshal(text, &k); err != nil {
		return kernel{}, fmt.Errorf("read %s of %v: %w", recordName, col, err)
	}
	k.path = filepath.Join(dir, filepath.Base(k.File))
	return k, checkDigest(k.path, k.SHA256)
}

// checkDigest compares the SHA-256 of a file.
func checkDigest(path, want string) error {
	got, err := digest(path)
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("check %s: its SHA-256 is %s, want %s", path, got, want)
	}
	return nil
}

func digest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// fetch downloads the package and keeps its image. It writes the file with the digest
// last, so an incomplete download is not used.
func (c *cache) fetch(a *apt, col column, p pkg) (kernel, error) {
	fmt.Fprintf(os.Stderr, "kernelmatrix: fetching %s %s\n", p.Name, p.Version)
	deb, err := a.download(p)
	if err != nil {
		return kernel{}, err
	}
	if err := checkDigest(deb, p.SHA256); err != nil {
		return kernel{}, err
	}
	dir := c.columnDir(col)
	if err := os.RemoveAll(dir); err != nil {
		return kernel{}, err
	}
	unpacked := filepath.Join(dir, "unpacked")
	if err := os.MkdirAll(unpacked, 0o755); err != nil {
		return kernel{}, err
	}
	defer os.RemoveAll(unpacked)
	if _, err := command("", "dpkg-deb", "--extract", deb, unpacked); err != nil {
		return kernel{}, err
	}
	images, err := filepath.Glob(filepath.Join(unpacked, "boot", "vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return kernel{}, fmt.Errorf("unpack %s: %d kernel images in it", p.Name, len(images))
	}
	k := kernel{Package: p, File: filepath.Base(images[0])}
	k.path = filepath.Join(dir, k.File)
	if err := os.Rename(images[0], k.path); err != nil {
		return kernel{}, err
	}
	if k.SHA256, err = digest(k.path); err != nil {
		return kernel{}, err
	}
	return k, errors.Join(k.save(filepath.Join(dir, recordName)), os.RemoveAll(filepath.Dir(deb)))
}

func (k *kernel) save(path string) error {
	text, err := json.MarshalIndent(k, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}
