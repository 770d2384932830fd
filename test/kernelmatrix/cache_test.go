package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// A kernel is taken from the cache only if its record and its digest are right.
func TestCache_OnlyWholeKernels(t *testing.T) {
	const sum = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824" // of hello
	c := newCache(t.TempDir())
	col := column{"6.12", "amd64"}
	if _, err := c.cached(col); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("from an empty cache: %v", err)
	}
	dir := c.columnDir(col)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(dir, "vmlinuz-6.12")
	write(t, image, "hello")
	noted := kernel{Package: pkg{Name: "linux-image-6.12", Version: "6.12-1"}, File: "vmlinuz-6.12", SHA256: sum}
	if err := noted.save(filepath.Join(dir, recordName)); err != nil {
		t.Fatal(err)
	}

	got, err := c.cached(col)
	if err != nil {
		t.Fatal(err)
	}
	noted.path = image
	if got != noted {
		t.Errorf("got %+v, want %+v", got, noted)
	}

	write(t, image, "hellO")
	if _, err := c.cached(col); err == nil {
		t.Error("a kernel with another digest was taken")
	}
	write(t, filepath.Join(dir, recordName), "{")
	if _, err := c.cached(col); err == nil {
		t.Error("a broken record was taken")
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
