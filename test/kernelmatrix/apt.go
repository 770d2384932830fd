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

// keyring is what Debian's archive is signed with; apt refuses what is not.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// indexAge is how long an index is good for: Debian's archive changes a few times
// a day, and what it drops is gone.
const indexAge = 12 * time.Hour

// apt is Debian's client with lists and a cache of its own, so that the machine's
// stay as they are.
type apt struct {
	dir     string
	options []string
}

// newApt takes the machine's own mirror. The state is for an architecture, and, if
// foreign, knows of no installed package.
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
		"-o", "APT::Sandbox::User=root", // its own could not get at the state
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

// update fetches the suites' indices unless they are there and young.
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

// download fetches a package and gives its file; apt has checked its signature.
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

// packages are those in the indices that keep accepts by name.
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

// machineMirrors are the archives in the machine's own sources, the likeliest first.
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

// parseMirrors reads what apt-get update --print-uris prints: 'URI' file size. An
// archive that also has updates is more likely to be Debian's than somebody
// else's that uses the same names of suites.
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

// command runs a program and gives its standard output; its standard error is in
// the error.
func command(dir, name string, arguments ...string) ([]byte, error) {
	c := exec.Command(name, arguments...)
	c.Dir = dir
	c.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	var complaint bytes.Buffer
	c.Stderr = &complaint
	output, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s", name, arguments[len(arguments)-1], err, complaint.Bytes())
	}
	return output, nil
}
