// Package packages_test builds the packages and a release, and installs, upgrades, removes and purges a package in a copy
// of this host's files.
package packages_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
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

func kernelmatrix(arguments ...string) *exec.Cmd {
	c := exec.Command("go", append([]string{"run", "./test/kernelmatrix"}, arguments...)...)
	c.Dir = "../.."
	return c
}

// startGuestBuild makes the guest with systemd in the background, because that waits for the network. The result
// waits until it is made.
func startGuestBuild(t *testing.T) (wait func(*testing.T)) {
	t.Helper()
	var out bytes.Buffer
	c := kernelmatrix("-make-debian")
	c.Stdout, c.Stderr = &out, &out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := sync.OnceValue(c.Wait)
	t.Cleanup(func() { _ = ended() })
	return func(t *testing.T) {
		t.Helper()
		if err := ended(); err != nil {
			t.Fatalf("%v\n%s", err, out.String())
		}
		t.Logf("%s", out.String())
	}
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
	t.Parallel()
	guestIsReady := startGuestBuild(t)
	first := build(t, "../..")
	deb := filepath.Join(first, "tcpshift_"+testVersion+"_amd64.deb")
	t.Run("lintian", func(t *testing.T) {
		t.Parallel()
		out, err := exec.Command("lintian", "--allow-root", "--fail-on", "error", deb).CombinedOutput()
		t.Logf("%s", out)
		if err != nil {
			t.Error(err)
		}
	})
	t.Run("life", func(t *testing.T) {
		t.Parallel()
		if out, err := exec.Command("./lifecycle.sh", deb).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	t.Run("systemd", func(t *testing.T) {
		t.Parallel()
		// The tests of ./guest, in a Debian that boots in QEMU. The last lines are its report.
		guestIsReady(t)
		out, err := kernelmatrix("-deb", deb).CombinedOutput()
		t.Logf("%s", out)
		if err != nil {
			console, _ := os.ReadFile("../../.cache/console/systemd-amd64.log")
			t.Errorf("%v\n%s", err, console)
		}
	})
	t.Run("rpm", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(first, "tcpshift-"+testVersion+"-1.x86_64.rpm")
		out, err := exec.Command("rpm", "-qp", "--nosignature", "--qf", "[%{FILENAMES} %{FILEFLAGS:fflags}\n]", path).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, want := range []string{"/usr/bin/tcpshift ", "/usr/lib/systemd/system/tcpshift.service ", "/usr/share/man/man8/tcpshift.8.gz ", "/etc/tcpshift/config.yaml cn", "/usr/share/doc/tcpshift/schema/config.json "} {
			if !strings.Contains(string(out), want) {
				t.Errorf("the rpm has no %q:\n%s", want, out)
			}
		}
	})
	t.Run("static", func(t *testing.T) {
		t.Parallel()
		for _, arch := range []string{"amd64", "arm64"} {
			out, err := exec.Command("readelf", "-l", filepath.Join(first, "tcpshift-linux-"+arch)).CombinedOutput()
			if err != nil || bytes.Contains(out, []byte("INTERP")) {
				t.Errorf("%s is not static: %v", arch, err)
			}
		}
	})
}
