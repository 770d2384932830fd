package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/tcpshift/tcpshift/test/kernelmatrix/guest"
)

// buildInitramfs builds static binaries of process 1 and the tests for an architecture,
// and packs them.
func buildInitramfs(dir, arch string) (path string, err error) {
	dir = filepath.Join(dir, "initramfs", arch)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	init, tests := filepath.Join(dir, "init"), filepath.Join(dir, "kernel.test")
	const small = "-ldflags=-s -w"
	if err := goTool(arch, "build", "-trimpath", small, "-o", init, "./test/kernelmatrix/init"); err != nil {
		return "", err
	}
	if err := goTool(arch, "test", "-c", "-trimpath", small, "-o", tests, "./test/kernel"); err != nil {
		return "", err
	}
	path = filepath.Join(dir, "initramfs.cpio")
	return path, writeInitramfs(path, init, tests)
}

func goTool(arch string, arguments ...string) error {
	c := exec.Command("go", arguments...)
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	c.Stdout, c.Stderr = os.Stderr, os.Stderr
	if err := c.Run(); err != nil {
		return fmt.Errorf("go %s for %s: %w", arguments[0], arch, err)
	}
	return nil
}

func writeInitramfs(path, init, tests string) error {
	testBinary := strings.TrimPrefix(guest.TestBinary, "/")
	return writeArchive(path, []string{"dev"}, []string{"init", testBinary}, map[string]string{"init": init, testBinary: tests})
}

// writeArchive writes an initramfs with directories, a console, and files, whose content is that of other files.
func writeArchive(path string, dirs, names []string, contents map[string]string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	a := archive{w: f}
	for _, dir := range dirs {
		a.add(entry{name: dir, mode: typeDir | 0o755})
	}
	// Without it, process 1 has no standard output.
	a.add(entry{name: "dev/console", mode: typeDevice | 0o600, major: 5, minor: 1})
	for _, name := range names {
		content, err := os.ReadFile(contents[name])
		if err != nil {
			return err
		}
		a.add(entry{name: name, mode: typeFile | 0o755, content: content})
	}
	if err := a.close(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return f.Close()
}
