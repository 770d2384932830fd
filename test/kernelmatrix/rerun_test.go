package main

import (
	"os/exec"
	"strings"
	"testing"
)

// The patterns of failed tests select these tests and no others.
func TestRerun_PatternIsExact(t *testing.T) {
	all := []string{"TestPattern", "TestPattern/a", "TestPattern/a_(b),_c", "TestPattern/a_(b),_c/d", "TestPatternOther"}
	for _, name := range all {
		out, err := exec.Command("go", "test", "-count=1", "-v", "-run", exactly("TestNone")+"|"+exactly(name), "./testdata/pattern").CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, other := range all {
			ran := strings.Contains(string(out), "--- PASS: "+other+" ")
			related := name == other || strings.HasPrefix(name, other+"/") || strings.HasPrefix(other, name+"/")
			if ran != related {
				t.Errorf("%s: ran %s: %v\n%s", name, other, ran, out)
			}
		}
	}
}
