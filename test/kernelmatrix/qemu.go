package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// machine is how QEMU emulates an architecture. It always emulates: where guests
// themselves run in a guest, hardware virtualisation shows up and does not work.
type machine struct {
	qemu, debian string // program and package
	arguments    []string
	kernel       string // command line
}

// An emulated "rep movsb" copies byte by byte, so the kernel is told that it is slow;
// a younger processor on arm64 has more that costs. Each saves a third of the time. So
// does a kernel at its own address on arm64. A guest's processors take turns on one
// thread: threads of their own would cost half as much again for the locks between them.
var machines = map[string]machine{
	"amd64": {"qemu-system-x86_64", "qemu-system-x86", []string{"-M", "pc", "-cpu", "Nehalem"},
		"console=ttyS0 reboot=t tsc=reliable no_timer_check"},
	"arm64": {"qemu-system-aarch64", "qemu-system-arm", []string{"-M", "virt", "-cpu", "cortex-a76"},
		"console=ttyAMA0"},
}

// command is QEMU's command line for a guest.
func (m machine) command(k kernel, initramfs string, cpus int, words []string) []string {
	arguments := []string{
		"-accel", "tcg,thread=single", "-smp", strconv.Itoa(cpus), "-m", "1024",
		"-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot", "-net", "none",
		"-kernel", k.path, "-initrd", initramfs,
		"-append", m.kernel + " quiet loglevel=1 panic=-1 oops=panic mitigations=off nokaslr rdinit=/init -- " + strings.Join(words, " "),
	}
	return slices.Concat(m.arguments, arguments)
}

// Guests die now and then under QEMU 7, Debian 12's own.
const oldestQEMU = 10

// installQEMU installs QEMU for the architectures from Debian where it is missing
// or old.
func installQEMU(dir string, arches []string) error {
	var missing []string
	for _, arch := range arches {
		if m := machines[arch]; qemuVersion(m.qemu) < oldestQEMU {
			missing = append(missing, m.debian)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	suites, err := qemuSuites()
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "kernels: installing %s from %s\n", strings.Join(missing, " "), suites[len(suites)-1])
	if os.Geteuid() != 0 {
		return fmt.Errorf("install %s: only root may; install version %d or later, then come back", strings.Join(missing, " "), oldestQEMU)
	}
	a, err := newApt(filepath.Join(dir, "apt", "qemu"), suites, "", false)
	if err != nil {
		return err
	}
	arguments := slices.Concat([]string{"install", "-y", "--no-install-recommends", "-t", suites[len(suites)-1]}, missing)
	_, err = a.get(arguments...)
	return err
}

// qemuSuites are where this machine's release has a QEMU that is new enough: the
// last one.
func qemuSuites() ([]string, error) {
	text, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return nil, err
	}
	m := regexp.MustCompile(`(?m)^VERSION_CODENAME=(\w+)$`).FindSubmatch(text)
	if m == nil {
		return nil, errors.New("install QEMU: /etc/os-release names no VERSION_CODENAME: install it yourself")
	}
	codename := string(m[1])
	if codename == "bookworm" {
		return []string{codename, codename + "-backports"}, nil
	}
	return []string{codename}, nil
}

var qemuVersionLine = regexp.MustCompile(`version (\d+)\.`)

// qemuVersion is the major one, 0 if it is not installed.
func qemuVersion(program string) int {
	output, err := exec.Command(program, "--version").Output()
	if err != nil {
		return 0
	}
	m := qemuVersionLine.FindSubmatch(output)
	if m == nil {
		return 0
	}
	return number(string(m[1]))
}
