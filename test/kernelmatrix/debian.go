package main

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tcpshift/tcpshift/test/kernelmatrix/guest"
)

// debianColumn names the guest with systemd in reports.
var debianColumn = column{"systemd", "amd64"}

// debianScript makes the root file system of the guest.
//
//go:embed debian.sh
var debianScript []byte

// debian is a Debian that boots: a disk with its root file system, its kernel, and an initramfs with ./rootinit and
// the modules of the disk.
type debian struct {
	root, kernel, initramfs string
}

// runDebian runs the tests of ./test/packages/guest in a Debian with systemd.
func (s *settings) runDebian() error {
	began := time.Now()
	base, err := makeDebian(s.dir)
	if err != nil {
		return err
	}
	payload, err := makePayload(s.dir, s.deb)
	if err != nil {
		return err
	}
	o := &outcome{column: debianColumn}
	booted := time.Now()
	m := machines[debianColumn.arch]
	o.err = s.guests.start(o, debianBootLimit, m.qemu, base.command(m, payload))
	o.took = time.Since(booted)
	return s.report([]*outcome{o}, time.Since(began))
}

// command returns QEMU's command line. What the guest writes to the root disk is not kept.
func (d *debian) command(m machine, payload string) []string {
	// An emulated processor may be slow to start a unit.
	const parameters = "systemd.show_status=false systemd.mask=serial-getty@ttyS0.service systemd.default_timeout_start_sec=1800"
	const cpus = 1 // emulated ones share a thread, and wait for each other's locks
	return append(m.boot(d.kernel, d.initramfs, cpus, parameters),
		"-drive", "file="+d.root+",format=raw,if=virtio,snapshot=on",
		"-drive", "file="+payload+",format=raw,if=virtio,readonly=on")
}

// makeDebian returns the Debian of this machine's release. The file system comes from the cache, unless its
// recipe has changed: then it makes a new one, which needs root.
func makeDebian(cache string) (*debian, error) {
	suites, err := qemuSuites()
	if err != nil {
		return nil, err
	}
	recipe := sha256.Sum256(slices.Concat(debianScript, []byte(suites[0])))
	dir, err := filepath.Abs(filepath.Join(cache, "debian", hex.EncodeToString(recipe[:6])))
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(dir); err != nil {
		if err := runDebianScript(suites[0], dir); err != nil {
			return nil, err
		}
	}
	d := &debian{filepath.Join(dir, "root.ext4"), filepath.Join(dir, "vmlinuz"), filepath.Join(dir, "initramfs.cpio")}
	err = d.makeInitramfs(filepath.Join(dir, "modules"), filepath.Join(dir, "rootinit"))
	return d, err
}

// runDebianScript makes the directory, and removes those of older recipes.
func runDebianScript(suite, dir string) error {
	began := time.Now()
	if os.Geteuid() != 0 {
		return errors.New("make a root file system: this needs root")
	}
	mirrors, err := machineMirrors()
	if err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Dir(dir)); err != nil {
		return err
	}
	part := dir + ".part"
	if err := os.MkdirAll(part, 0o755); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "kernelmatrix: making a root file system of %s\n", suite)
	script := filepath.Join(part, "debian.sh")
	if err := os.WriteFile(script, debianScript, 0o755); err != nil {
		return err
	}
	if _, err := command("", script, suite, mirrors[0], part); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "kernelmatrix: that took %d s\n", int(time.Since(began).Seconds()))
	return os.Rename(part, dir)
}

// makeInitramfs builds ./rootinit as program, and packs it with the modules.
func (d *debian) makeInitramfs(modules, program string) error {
	if err := goTool(debianColumn.arch, "build", "-trimpath", "-ldflags=-s -w", "-o", program, "./test/kernelmatrix/rootinit"); err != nil {
		return err
	}
	paths, err := filepath.Glob(filepath.Join(modules, "*.ko"))
	if err != nil {
		return err
	}
	files := map[string]string{"init": program}
	names := []string{"init"}
	for _, path := range paths {
		name := "modules/" + filepath.Base(path)
		files[name], names = path, append(names, name)
	}
	return writeArchive(d.initramfs, []string{"dev", "modules"}, names, files)
}

// makePayload makes the disk with the tests, the package, and the package with a later version.
func makePayload(cache, deb string) (path string, err error) {
	dir, err := filepath.Abs(filepath.Join(cache, "payload"))
	if err != nil {
		return "", err
	}
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(filepath.Join(dir, "files"), 0o755)); err != nil {
		return "", err
	}
	files := filepath.Join(dir, "files")
	if err := goTool(debianColumn.arch, "test", "-c", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(files, strings.TrimPrefix(guest.TestBinary, "/")), "./test/packages/guest"); err != nil {
		return "", err
	}
	if _, err := command("", "cp", deb, filepath.Join(files, "old.deb")); err != nil {
		return "", err
	}
	if _, err := command("", "test/packages/later.sh", deb, filepath.Join(files, "new.deb")); err != nil {
		return "", err
	}
	path = filepath.Join(dir, "payload.ext4")
	_, err = command("", "mkfs.ext4", "-q", "-F", "-L", "payload", "-d", files, path, "256M")
	return path, err
}
