package main

import (
	"bufio"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"github.com/tcpshift/tcpshift/test/kernelmatrix/expect"
)

// suites has the suite of Debian with the cloud kernels of each version.
var suites = map[string]string{
	"5.10": "bullseye",
	"6.1":  "bookworm",
	"6.12": "trixie",
	"6.18": "trixie-backports",
	"7.1":  "trixie-backports",
}

// column is one kernel on one architecture: a column of the matrix.
type column struct {
	version, arch string
}

// String returns kernel version and architecture.
func (c column) String() string { return c.version + " " + c.arch }

func (c column) row() expect.Row {
	row, _ := expect.For(c.version, c.arch)
	return row
}

// pkg is a package in an index.
type pkg struct {
	Name, Version, SHA256 string
}

// parseIndex returns the packages of a Packages file whose name keep accepts.
func parseIndex(r io.Reader, keep func(name string) bool) ([]pkg, error) {
	var packages []pkg
	var p pkg
	end := func() {
		if p.Name != "" && keep(p.Name) {
			packages = append(packages, p)
		}
		p = pkg{}
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20) // some fields are long
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ": ")
		switch field {
		case "":
			end()
		case "Package":
			p.Name = value
		case "Version":
			p.Version = value
		case "SHA256":
			p.SHA256 = value
		}
	}
	end()
	return packages, lines.Err()
}

// newest returns the latest point release of a column. In newer suites the image is in
// a package linux-binary, and linux-image of that name is empty.
func newest(packages []pkg, c column) (pkg, error) {
	pattern := regexp.MustCompile(`^linux-(image|binary)-` + regexp.QuoteMeta(c.version) + `\.(\d+)(?:-(\d+)|\+deb\d+)-cloud-` + c.arch + `$`)
	var best pkg
	bestRank := [3]int{-1}
	for _, p := range packages {
		m := pattern.FindStringSubmatch(p.Name)
		if m == nil {
			continue
		}
		rank := [3]int{number(m[2]), number(m[3]), 0}
		if m[1] == "binary" {
			rank[2] = 1
		}
		if less(bestRank, rank) {
			best, bestRank = p, rank
		}
	}
	if best.Name == "" {
		return pkg{}, fmt.Errorf("find a kernel %v: %s has none; see suites in test/kernelmatrix/packages.go", c, suites[c.version])
	}
	return best, nil
}

func number(digits string) int {
	n, err := strconv.Atoi(digits)
	if err != nil {
		return 0 // the group is optional
	}
	return n
}

func less(a, b [3]int) bool {
	for i := range a {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return false
}
