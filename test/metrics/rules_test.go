package metrics_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tcpshift/tcpshift/internal/metrics"
)

// promtool accepts the rules, and their unit tests pass.
func TestRules_Promtool(t *testing.T) {
	promtool := prometheusProgram(t, "promtool")
	for _, args := range [][]string{{"check", "rules", "tcpshift.rules.yml"}, {"test", "rules", "tcpshift_test.yml"}} {
		cmd := exec.Command(promtool, args...)
		cmd.Dir = rulesDir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Each alert has a unit test, and a section of the runbook, to which it leads; the runbook has no others.
func TestRules_Runbook(t *testing.T) {
	rules, tests, runbook := readFile(t, rulesDir+"/tcpshift.rules.yml"), readFile(t, rulesDir+"/tcpshift_test.yml"), readFile(t, "../../docs/runbook.md")
	var alerts, sections []string
	for _, found := range regexp.MustCompile(`(?m)^      - alert: (\w+)$`).FindAllStringSubmatch(rules, -1) {
		alerts = append(alerts, found[1])
		if !strings.Contains(tests, "alertname: "+found[1]+"\n") {
			t.Errorf("%s has no unit test", found[1])
		}
		if link := "docs/runbook.md#" + strings.ToLower(found[1]) + "\n"; !strings.Contains(rules, link) {
			t.Errorf("%s does not lead to its section of the runbook", found[1])
		}
	}
	for _, found := range regexp.MustCompile(`(?m)^## (\w+)$`).FindAllStringSubmatch(runbook, -1) {
		sections = append(sections, found[1])
	}
	if len(alerts) == 0 || !slices.Equal(alerts, sections) {
		t.Errorf("the alerts are %q, the sections of the runbook %q", alerts, sections)
	}
}

// What the rules and the dashboards name exists.
func TestRules_MetricsExist(t *testing.T) {
	known := make(map[string]bool)
	for _, f := range metrics.Families() {
		known[f.Name] = true
		if f.Type == "histogram" {
			known[f.Name+"_bucket"], known[f.Name+"_count"], known[f.Name+"_sum"] = true, true, true
		}
	}
	dashboards, err := filepath.Glob("../../deploy/grafana/*.json")
	if err != nil || len(dashboards) == 0 {
		t.Fatalf("there are no dashboards: %v", err)
	}
	for _, path := range append(dashboards, rulesDir+"/tcpshift.rules.yml") {
		for _, name := range regexp.MustCompile(`\b(tcpshift|process)_[a-z_]+\b`).FindAllString(readFile(t, path), -1) {
			if !known[name] && name != "tcpshift_test" {
				t.Errorf("%s names %s, which does not exist", path, name)
			}
		}
	}
}
