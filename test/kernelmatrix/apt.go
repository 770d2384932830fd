package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// keyring contains the keys of Debian's archive. apt refuses packages that they have
// not signed.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// indexAge is how long an index may be used: the archive changes a few times a day and
// removes old packages.
const indexAge = 12 * time.Hour

// apt is Debian's package client with its own lists and cache, so that those of the
// machine do not change.
type apt struct {
	dir     string
	options []string
}

// newApt sets up a client for an architecture, with the machine's own mirrors. For a
// foreign architecture it knows no installed package.
func newApt(dir string, suites []string, arch string, foreign bool) (*apt, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	a := &apt{dir: dir, options: []string{
		"-q",
		"-o", "Dir::Etc::sourcelist=" + dir + "/sources.list",
		"-o", "Dir::Etc::sourceparts=/dev/null",
		"-o", "Dir::State::lists=" + dir + "/lists",
		"-o", "Dir::Cache=" + dir + "/cache",
		"-o", "Acquire::Languages=none",
		"-o", "Acquire::GzipIndexes=false",
		"-o", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
		"-o", "Acquire::IndexTargets::deb::CNF::DefaultEnabled=false",
		"-o", "APT::Sandbox::User=root", // apt's own user could not read the directory
	}}
	for _, d := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	if foreign {
		status := filepath.Join(dir, "status")
		if err := os.WriteFile(status, nil, 0o644); err != nil {
			return nil, err
		}
		a.options = append(a.options, "-o", "Dir::State::status="+status,
			"-o", "APT::Architecture="+arch, "-o", "APT::Architectures="+arch)
	}
	err = a.update(suites)
	return a, err
}

// update fetches the indices of the suites unless they are there and newer than
// indexAge.
func (a *apt) update(suites []string) error {
	stamp := filepath.Join(a.dir, "updated")
	want := strings.Join(suites, " ")
	if info, err := os.Stat(stamp); err == nil && time.Since(info.ModTime()) < indexAge {
		if have, err := os.ReadFile(stamp); err == nil && string(have) == want {
			return nil
		}
	}
	mirrors, err := machineMirrors()
	if err != nil {
		return err
	}
	var errs []error
	for _, mirror := range mirrors {
		if err := a.updateFrom(mirror, suites); err != nil {
			errs = append(errs, err)
			continue
		}
		return os.WriteFile(stamp, []byte(want), 0o644)
	}
	return fmt.Errorf("fetch package indices from this machine's mirrors: %w", errors.Join(errs...))
}

func (a *apt) updateFrom(mirror string, suites []string) error {
	var list strings.Builder
	for _, suite := range suites {
		fmt.Fprintf(&list, "deb [signed-by=%s] %s %s main\n", keyring, mirror, suite)
	}
	if err := os.WriteFile(filepath.Join(a.dir, "sources.list"), []byte(list.String()), 0o644); err != nil {
		return err
	}
	_, err := a.get("update", "--error-on=any")
	return err
}

// get runs apt-get.
func (a *apt) get(arguments ...string) (output []byte, err error) {
	return command("", "apt-get", slices.Concat(a.options, arguments)...)
}

// download fetches a package and returns its file. apt checks the signature.
func (a *apt) download(p pkg) (file string, err error) {
	dir := filepath.Join(a.dir, "cache", "download")
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
		return "", err
	}
	if _, err := command(dir, "apt-get", slices.Concat(a.options, []string{"download", p.Name + "=" + p.Version})...); err != nil {
		return "", err
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(files) != 1 {
		return "", fmt.Errorf("download %s: apt-get left %d files", p.Name, len(files))
	}
	return files[0], nil
}

// packages returns the packages in the indices whose name keep accepts.
func (a *apt) packages(keep func(name string) bool) ([]pkg, error) {
	files, err := filepath.Glob(filepath.Join(a.dir, "lists", "*_Packages"))
	if err != nil {
		return nil, err
	}
	var all []pkg
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		packages, err := parseIndex(f, keep)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		all = append(all, packages...)
	}
	return all, nil
}

// machineMirrors returns the archives in the machine's own sources, the most likely one
// first.
func machineMirrors() ([]string, error) {
	uris, err := command("", "apt-get", "update", "--print-uris")
	if err != nil {
		return nil, fmt.Errorf("ask apt for this machine's mirrors: %w", err)
	}
	mirrors := parseMirrors(string(uris))
	if len(mirrors) == 0 {
		return nil, errors.New("find a Debian mirror: this machine's apt sources have none")
	}
	return mirrors, nil
}

// parseMirrors parses the output of apt-get update --print-uris: 'URI' file size. An
// archive with an updates suite is more likely Debian's than another one that uses its
// names of suites.
func parseMirrors(uris string) []string {
	var mirrors []string
	updated := map[string]bool{}
	for line := range strings.Lines(uris) {
		uri, _, _ := strings.Cut(strings.TrimPrefix(line, "'"), "'")
		mirror, suite, ok := strings.Cut(uri, "/dists/")
		if !ok {
			continue
		}
		if !slices.Contains(mirrors, mirror) {
			mirrors = append(mirrors, mirror)
		}
		suite, _, _ = strings.Cut(suite, "/")
		updated[mirror] = updated[mirror] || strings.HasSuffix(suite, "-updates")
	}
	slices.SortStableFunc(mirrors, func(a, b string) int {
		switch {
		case updated[a] == updated[b]:
			return 0
		case updated[a]:
			return -1
		}
		return 1
	})
	return mirrors
}

// command runs a program and returns its standard output. The error contains its
// standard error.
func command(dir, name string, arguments ...string) ([]byte, error) {
	c := exec.Command(name, arguments...)
	c.Dir = dir
	c.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	var stderr bytes.Buffer
	c.Stderr = &stderr
	output, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s", name, arguments[len(arguments)-1], err, stderr.Bytes())
	}
	return output, nil
}
