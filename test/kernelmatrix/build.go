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
	initBinary, err := os.ReadFile(init)
	if err != nil {
		return err
	}
	testBinary, err := os.ReadFile(tests)
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	a := archive{w: f}
	a.add(entry{name: "dev", mode: typeDir | 0o755})
	// Without it, process 1 has no standard output.
	a.add(entry{name: "dev/console", mode: typeDevice | 0o600, major: 5, minor: 1})
	a.add(entry{name: "init", mode: typeFile | 0o755, content: initBinary})
	a.add(entry{name: strings.TrimPrefix(guest.TestBinary, "/"), mode: typeFile | 0o755, content: testBinary})
	if err := a.close(); err != nil {
		f.Close()
		return fmt.Errorf("write %s: %w", path, err)
	}
	return f.Close()
}
