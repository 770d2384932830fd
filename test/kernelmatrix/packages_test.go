package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/tcpshift/tcpshift/test/kernelmatrix/expect"
)

const index = `Package: linux-image-6.12.94+deb13-cloud-amd64
Source: linux-signed-amd64 (6.12.94+1)
Version: 6.12.94-1
Description: Linux 6.12 for x86-64 cloud
 with a line that goes on: Package: no
SHA256: aa94

Package: not-a-kernel
Version: 1
SHA256: 00

Package: linux-image-6.12.107+deb13-cloud-amd64
Version: 6.12.107-1
SHA256: aa107
`

// An index gives the packages asked for.
func TestPackages_ParseIndex(t *testing.T) {
	for name, text := range map[string]string{"with a blank line at its end": index + "\n", "without": index} {
		t.Run(name, func(t *testing.T) {
			got, err := parseIndex(strings.NewReader(text), isKernel)
			if err != nil {
				t.Fatal(err)
			}
			want := []pkg{
				{"linux-image-6.12.94+deb13-cloud-amd64", "6.12.94-1", "aa94"},
				{"linux-image-6.12.107+deb13-cloud-amd64", "6.12.107-1", "aa107"},
			}
			if !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

// The newest point release is taken.
func TestPackages_NewestPointRelease(t *testing.T) {
	names := []string{
		"linux-image-5.10.0-9-cloud-amd64",
		"linux-image-5.10.0-32-cloud-amd64",
		"linux-image-5.10.0-40-cloud-amd64-unsigned",
		"linux-image-5.10.0-41-cloud-amd64-dbg",
		"linux-image-5.10.0-42-amd64",
		"linux-image-5.10.0-31-cloud-arm64",
		"linux-image-6.1.0-50-cloud-amd64",
		"linux-image-6.12.94+deb13-cloud-amd64",
		"linux-image-6.12.107+deb13-cloud-amd64",
		"linux-image-6.18.15+deb13-cloud-amd64",
		"linux-binary-7.1.13+deb13-cloud-amd64",
		"linux-image-7.1.13+deb13-cloud-amd64",
		"linux-binary-7.1.8+deb13-cloud-amd64",
		"linux-image-7.1.8+deb13-cloud-amd64",
		"linux-image-cloud-amd64",
	}
	var packages []pkg
	for _, name := range names {
		packages = append(packages, pkg{Name: name})
	}
	for c, want := range map[column]string{
		{"5.10", "amd64"}: "linux-image-5.10.0-32-cloud-amd64",
		{"5.10", "arm64"}: "linux-image-5.10.0-31-cloud-arm64",
		{"6.1", "amd64"}:  "linux-image-6.1.0-50-cloud-amd64",
		{"6.12", "amd64"}: "linux-image-6.12.107+deb13-cloud-amd64",
		{"6.18", "amd64"}: "linux-image-6.18.15+deb13-cloud-amd64",
		{"7.1", "amd64"}:  "linux-binary-7.1.13+deb13-cloud-amd64",
	} {
		t.Run(c.String(), func(t *testing.T) {
			got, err := newest(packages, c)
			if err != nil {
				t.Fatal(err)
			}
			if got.Name != want {
				t.Errorf("got %s, want %s", got.Name, want)
			}
		})
	}
	if got, err := newest(packages, column{"7.1", "arm64"}); err == nil {
		t.Errorf("found %v where there is none", got)
	}
}

// Every column has a suite and a machine.
func TestPackages_EveryColumnHasSuite(t *testing.T) {
	for _, c := range columns(expect.KernelVersions, expect.Arches, false) {
		if suites[c.version] == "" {
			t.Errorf("%v has no suite", c)
		}
		if machines[c.arch].qemu == "" {
			t.Errorf("%v has no machine", c)
		}
	}
}
