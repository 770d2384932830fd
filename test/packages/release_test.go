package packages_test

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

const releaseVersion = "9.8.7"

// run runs a program that must succeed, and returns its standard output.
func run(t *testing.T, name string, arguments ...string) string {
	t.Helper()
	var stderr bytes.Buffer
	c := exec.Command(name, arguments...)
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(arguments, " "), err, out, stderr.Bytes())
	}
	return string(out)
}

// clone returns a clone of what is committed.
func clone(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "clone")
	run(t, "git", "clone", "-q", "../..", dir)
	return dir
}

// release makes a release of a clone.
func release(t *testing.T, tree string) (dist string) {
	t.Helper()
	dist = t.TempDir()
	run(t, filepath.Join(tree, "deploy", "packages", "release.sh"), dist)
	return dist
}

// A release is made from a tag and a clean tree only, and says why not.
func TestRelease_Refused(t *testing.T) {
	t.Parallel()
	tree := clone(t)
	refused := func(name, want string) {
		t.Helper()
		dist := filepath.Join(t.TempDir(), "dist")
		out, err := exec.Command(filepath.Join(tree, "deploy", "packages", "release.sh"), dist).CombinedOutput()
		if err == nil || string(out) != want+"\n" {
			t.Errorf("%s: %v: got %q, want %q", name, err, out, want)
		}
		if _, err := os.Stat(dist); err == nil {
			t.Errorf("%s: something is built", name)
		}
	}
	refused("no tag", "release: the commit has no tag: git tag -a v1.2.3 -m 1.2.3")
	run(t, "git", "-C", tree, "tag", "v1.2")
	refused("no version", "release: the tag v1.2 is no version, such as v1.2.3")
	run(t, "git", "-C", tree, "tag", "-d", "v1.2")
	run(t, "git", "-C", tree, "tag", "v"+releaseVersion)
	if err := os.WriteFile(filepath.Join(tree, "new.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refused("a new file", "release: the tree has changes, such as '?? new.txt': commit or remove them")
}

// Two releases of one tag in two folders have the same bytes, and the version of the tag.
func TestRelease_FromTag(t *testing.T) {
	t.Parallel()
	var dists []string
	for range 2 {
		tree := clone(t)
		run(t, "git", "-C", tree, "tag", "v"+releaseVersion)
		dists = append(dists, release(t, tree))
	}
	dist := dists[0]
	if first, second := read(t, filepath.Join(dist, "checksums.txt")), read(t, filepath.Join(dists[1], "checksums.txt")); first != second {
		t.Errorf("the checksums are\n%s\nand then\n%s", first, second)
	}
	t.Run("files", func(t *testing.T) { releaseFiles(t, dist) })
	t.Run("version", func(t *testing.T) { releaseVersions(t, dist) })
	for _, arch := range []string{"amd64", "arm64"} {
		t.Run("modules of "+arch, func(t *testing.T) { modules(t, filepath.Join(dist, "tcpshift-linux-"+arch)) })
	}
}

// releaseFiles checks that checksums.txt lists exactly the files of the release, with the right sums.
func releaseFiles(t *testing.T, dist string) {
	var want []string
	for line := range strings.Lines(read(t, filepath.Join(dist, "checksums.txt"))) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		got := sha256.Sum256([]byte(read(t, filepath.Join(dist, name))))
		if hex.EncodeToString(got[:]) != sum {
			t.Errorf("%s does not have its checksum", name)
		}
		want = append(want, name)
	}
	var got []string
	entries, err := os.ReadDir(dist)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "checksums.txt" {
			got = append(got, e.Name())
		}
	}
	slices.Sort(want)
	if !slices.Equal(got, want) || len(got) != 8 {
		t.Errorf("the release has %q, and checksums of %q; want 2 programs, 2 lists of modules, 2 deb and 2 rpm", got, want)
	}
}

// releaseVersions compares the versions in program, packages and start record with the tag.
func releaseVersions(t *testing.T, dist string) {
	program := filepath.Join(dist, "tcpshift-linux-amd64")
	start, _, _ := strings.Cut(run(t, program, "trace", "--only", "stats", "--duration", "100ms"), "\n")
	var record struct{ Type, Version string }
	if err := json.Unmarshal([]byte(start), &record); err != nil || record.Type != "start" {
		t.Fatalf("no start record: %v: %s", err, start)
	}
	words := strings.Fields(run(t, program, "version"))
	for what, got := range map[string]string{
		"start":   record.Version,
		"program": strings.TrimSuffix(words[1], ","),
		"deb":     strings.TrimSpace(run(t, "dpkg-deb", "-f", filepath.Join(dist, "tcpshift_"+releaseVersion+"_amd64.deb"), "Version")),
		"rpm":     run(t, "rpm", "-qp", "--nosignature", "--qf", "%{VERSION}", filepath.Join(dist, "tcpshift-"+releaseVersion+"-1.x86_64.rpm")),
	} {
		if got != releaseVersion {
			t.Errorf("the version of %s is %q, want %q", what, got, releaseVersion)
		}
	}
}

// modules checks the list of the modules in a program: it conforms to the schema of CycloneDX, and no module is missing.
func modules(t *testing.T, program string) {
	list := read(t, program+".cdx.json")
	document, err := jsonschema.UnmarshalJSON(strings.NewReader(list))
	if err != nil {
		t.Fatal(err)
	}
	if err := cycloneDX(t).Validate(document); err != nil {
		t.Error(err)
	}
	var sbom struct {
		Metadata struct {
			Component struct {
				Name, Version string
				Hashes        []struct{ Alg, Content string }
			}
		}
		Components []struct{ Name, Version string }
	}
	if err := json.Unmarshal([]byte(list), &sbom); err != nil {
		t.Fatal(err)
	}
	if main := sbom.Metadata.Component; main.Name != "github.com/tcpshift/tcpshift" || main.Version != "v"+releaseVersion {
		t.Errorf("the list is of %+v", main)
	}
	listed := map[string]string{}
	for _, c := range sbom.Components {
		listed[c.Name] = c.Version
	}
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	if len(info.Deps) < 20 {
		t.Fatalf("only %d modules in %s", len(info.Deps), program)
	}
	for _, module := range info.Deps {
		if listed[module.Path] != module.Version {
			t.Errorf("the list has %s %q, the program %s", module.Path, listed[module.Path], module.Version)
		}
	}
	if listed["std"] == "" {
		t.Error("the list lacks the standard library")
	}
}

// cycloneDX returns the compiled schema of CycloneDX 1.6, which the module of the tool that writes the lists contains.
func cycloneDX(t *testing.T) *jsonschema.Schema {
	t.Helper()
	dir := strings.TrimSpace(run(t, "go", "list", "-modfile=../../.tools/release.mod", "-m", "-f", "{{.Dir}}", "github.com/CycloneDX/cyclonedx-go"))
	compiler := jsonschema.NewCompiler()
	const base = "http://cyclonedx.org/schema/"
	for url, file := range map[string]string{
		"bom-1.6.schema.json":  "bom-1.6.schema.json",
		"spdx.schema.json":     "spdx.schema.json",
		"jsf-0.82.schema.json": "jsf-0.82.schemax.json",
	} {
		document, err := jsonschema.UnmarshalJSON(strings.NewReader(read(t, filepath.Join(dir, "schema", file))))
		if err != nil {
			t.Fatal(err)
		}
		if err := compiler.AddResource(base+url, document); err != nil {
			t.Fatal(err)
		}
	}
	return compiler.MustCompile(base + "bom-1.6.schema.json")
}
