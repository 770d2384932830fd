// Package packages_test builds the packages and a release, and installs, upgrades, removes and purges a package in a copy of
// this host's files.
package packages_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const testVersion = "0.1.0~dev+test"

// build makes the packages from the tree at dir, and returns the directory with them.
func build(t *testing.T, dir string) string {
	t.Helper()
	dist := t.TempDir()
	out, err := exec.Command(dir+"/deploy/packages/build.sh", testVersion, dist).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dist
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A package installs, upgrades, downgrades, removes and purges the right files: lifecycle.sh checks each step.
func TestPackages_Life(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("needs root, to install the packages in a copy of the root directory")
	}
	first := build(t, "../..")
	deb := filepath.Join(first, "tcpshift_"+testVersion+"_amd64.deb")
	t.Run("lintian", func(t *testing.T) {
		out, err := exec.Command("lintian", "--allow-root", "--fail-on", "error", deb).CombinedOutput()
		t.Logf("%s", out)
		if err != nil {
			t.Error(err)
		}
	})
	t.Run("life", func(t *testing.T) {
		if out, err := exec.Command("./lifecycle.sh", deb).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	t.Run("systemd", func(t *testing.T) {
		// The tests of ./guest, in a Debian that boots in QEMU. The last lines are its report.
		guest := exec.Command("go", "run", "./test/kernelmatrix", "-deb", deb)
		guest.Dir = "../.."
		out, err := guest.CombinedOutput()
		t.Logf("%s", out)
		if err != nil {
			console, _ := os.ReadFile("../../.cache/console/systemd-amd64.log")
			t.Errorf("%v\n%s", err, console)
		}
	})
	t.Run("rpm", func(t *testing.T) {
		path := filepath.Join(first, "tcpshift-"+testVersion+"-1.x86_64.rpm")
		out, err := exec.Command("rpm", "-qp", "--nosignature", "--qf", "[%{FILENAMES} %{FILEFLAGS:fflags}\n]", path).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, want := range []string{"/usr/bin/tcpshift ", "/usr/lib/systemd/system/tcpshift.service ", "/usr/share/man/man8/tcpshift.8.gz ", "/etc/tcpshift/config.yaml cn"} {
			if !strings.Contains(string(out), want) {
				t.Errorf("the rpm has no %q:\n%s", want, out)
			}
		}
	})
	t.Run("static", func(t *testing.T) {
		for _, arch := range []string{"amd64", "arm64"} {
			out, err := exec.Command("readelf", "-l", filepath.Join(first, "tcpshift-linux-"+arch)).CombinedOutput()
			if err != nil || bytes.Contains(out, []byte("INTERP")) {
				t.Errorf("%s is not static: %v", arch, err)
			}
		}
	})
}
