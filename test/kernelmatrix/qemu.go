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

// machine is how QEMU emulates an architecture. It never uses hardware virtualisation,
// because that may not work on a host that is itself a guest.
type machine struct {
	qemu, debian string // program and package
	arguments    []string
	kernel       string // command line
}

// The models are old because newer ones are slow to emulate: QEMU emulates "rep movsb"
// byte by byte, which Nehalem does not advertise, and newer arm64 models have more such
// features. Each choice saves a third of the time, as does nokaslr on arm64. All CPUs of
// a guest share one thread: with one thread each, locks would cost half as much again.
var machines = map[string]machine{
	"amd64": {"qemu-system-x86_64", "qemu-system-x86", []string{"-M", "pc", "-cpu", "Nehalem"},
		"console=ttyS0 reboot=t tsc=reliable no_timer_check"},
	"arm64": {"qemu-system-aarch64", "qemu-system-arm", []string{"-M", "virt", "-cpu", "cortex-a76"},
		"console=ttyAMA0"},
}

// command returns QEMU's command line for a guest whose process 1 is ./init.
func (m machine) command(k kernel, initramfs string, cpus int, words []string) []string {
	return m.boot(k.path, initramfs, cpus, "rdinit=/init -- "+strings.Join(words, " "))
}

// boot returns QEMU's command line for a kernel. The parameters are added to the kernel's own.
func (m machine) boot(kernel, initramfs string, cpus int, parameters string) []string {
	arguments := []string{
		"-accel", "tcg,thread=single", "-smp", strconv.Itoa(cpus), "-m", "1024",
		"-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot", "-net", "none",
		"-kernel", kernel, "-initrd", initramfs,
		"-append", m.kernel + " quiet loglevel=1 panic=-1 oops=panic mitigations=off nokaslr " + parameters,
	}
	return slices.Concat(m.arguments, arguments)
}

// oldestQEMU is the oldest version that is used: guests sometimes crash under QEMU 7 of
// Debian 12.
const oldestQEMU = 10

// installQEMU installs QEMU from Debian for the architectures where it is missing or
// too old.
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
	fmt.Fprintf(os.Stderr, "kernelmatrix: installing %s from %s\n", strings.Join(missing, " "), suites[len(suites)-1])
	if os.Geteuid() != 0 {
		return fmt.Errorf("install %s: this needs root; or install version %d or later yourself", strings.Join(missing, " "), oldestQEMU)
	}
	a, err := newApt(filepath.Join(dir, "apt", "qemu"), suites, "", false)
	if err != nil {
		return err
	}
	arguments := slices.Concat([]string{"install", "-y", "--no-install-recommends", "-t", suites[len(suites)-1]}, missing)
	_, err = a.get(arguments...)
	return err
}

// qemuSuites returns the suites for this machine's release. The last one has a new QEMU.
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

// qemuVersion returns the major version, 0 if it is not installed.
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
