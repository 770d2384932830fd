package service_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Each module that go.mod requires itself has its reason in docs/dependencies.md, and no other is there.
func TestDependencies_Documented(t *testing.T) {
	var required []string
	for line := range strings.Lines(read(t, "../../go.mod")) {
		fields := strings.Fields(line)
		if strings.HasPrefix(line, "\t") && !strings.Contains(line, "// indirect") && len(fields) == 2 {
			required = append(required, fields[0])
		}
	}
	var documented []string
	for line := range strings.Lines(read(t, "../../docs/dependencies.md")) {
		if cells := strings.Split(line, "|"); len(cells) > 2 {
			for _, name := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[1], -1) {
				documented = append(documented, name[1])
			}
		}
	}
	slices.Sort(required)
	slices.Sort(documented)
	if !slices.Equal(required, documented) {
		t.Errorf("docs/dependencies.md has %v, go.mod %v", documented, required)
	}
}

// licences recognises the licences that are allowed, by what stands in each.
var licences = []struct {
	name string
	text *regexp.Regexp
}{
	{"Apache-2.0", regexp.MustCompile(`Apache License\s+Version 2\.0`)},
	{"MIT", regexp.MustCompile(`(?i)permission is hereby granted, free of charge, to any person`)},
	{"BSD", regexp.MustCompile(`Redistribution and use in source and binary forms[^,]*, with\s+or\s+without\s+modification,\s+are\s+permitted`)},
	{"ISC", regexp.MustCompile(`Permission to use, copy, modify, and(/or)? distribute this software for any\s+purpose`)},
}

// Each module in the program has a licence that is allowed.
func TestDependencies_Licences(t *testing.T) {
	const format = "{{with .Module}}{{if not .Main}}{{.Path}} {{.Dir}}{{end}}{{end}}"
	out, err := exec.Command("go", "list", "-deps", "-f", format, "../../cmd/tcpshift").Output()
	if err != nil {
		t.Fatal(err)
	}
	modules := slices.Compact(slices.Sorted(strings.Lines(string(out))))
	if len(modules) < 20 {
		t.Fatalf("only %d modules: %s", len(modules), out)
	}
	for _, line := range modules {
		fields := strings.Fields(line)
		if len(fields) != 2 {
			continue
		}
		if name := licenceIn(t, fields[1]); name == "" {
			t.Errorf("%s has no licence that is allowed: see %s", fields[0], fields[1])
		}
	}
}

// licenceIn returns the licence of the module in a directory, or "" if none of its texts is an allowed one.
func licenceIn(t *testing.T, directory string) string {
	t.Helper()
	for _, pattern := range []string{"LICEN[CS]E*", "Licen[cs]e*", "licen[cs]e*", "COPYING*"} {
		files, err := filepath.Glob(filepath.Join(directory, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range licences {
				if l.text.Match(text) {
					return l.name
				}
			}
		}
	}
	return ""
}

// The script that the program embeds has a licence that is allowed, and docs/dependencies.md names its version.
func TestDependencies_EmbeddedScript(t *testing.T) {
	if licenceIn(t, "../../internal/report/page/uplot") == "" {
		t.Error("uPlot has no licence that is allowed")
	}
	version := regexp.MustCompile(`(?m)^package=uplot version=(\S+)$`).FindStringSubmatch(read(t, "../check/look.sh"))
	if len(version) == 0 || !strings.Contains(read(t, "../../docs/dependencies.md"), " "+version[1]+" ") {
		t.Errorf("docs/dependencies.md does not name the version of uPlot, %v", version)
	}
	if script := read(t, "../../internal/report/page/uplot/uPlot.iife.min.js"); !strings.Contains(script, "v"+version[1]) {
		t.Errorf("the script is not version %s: %.120s", version[1], script)
	}
}
