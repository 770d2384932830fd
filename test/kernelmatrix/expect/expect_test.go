package expect

import (
	"maps"
	"testing"
)

// Each version and architecture has one row.
func TestExpect_OneRowPerColumn(t *testing.T) {
	count := map[[2]string]int{}
	for _, r := range Table {
		count[[2]string{r.Version, r.Arch}]++
	}
	for _, version := range KernelVersions {
		for _, arch := range Arches {
			if n := count[[2]string{version, arch}]; n != 1 {
				t.Errorf("%s %s has %d rows", version, arch, n)
			}
		}
	}
	if len(Table) != len(KernelVersions)*len(Arches) {
		t.Errorf("%d rows for %d versions and %d architectures", len(Table), len(KernelVersions), len(Arches))
	}
}

// The short form has one kernel of each kind: without socket storage, without the accept hook,
// with a child that has no peer at first, with preempted programs; on both architectures.
func TestExpect_ShortForm(t *testing.T) {
	kinds := map[string]bool{}
	for _, r := range Table {
		if r.InShortForm() {
			kinds[r.Version+" "+r.Arch] = true
		}
	}
	if want := map[string]bool{"5.10 amd64": true, "6.1 arm64": true, "7.1 amd64": true}; !maps.Equal(kinds, want) {
		t.Errorf("it has %v, want %v", kinds, want)
	}
}

// The release of a kernel selects its row.
func TestExpect_ReleaseSelectsRow(t *testing.T) {
	for release, want := range map[string][2]string{
		"5.10.0-32-cloud-amd64":      {"5.10", "amd64"},
		"6.1.0-50-cloud-arm64":       {"6.1", "arm64"},
		"6.12.107+deb13-cloud-amd64": {"6.12", "amd64"},
		"7.1.13+deb13-cloud-arm64":   {"7.1", "arm64"},
		"7.3.4+deb13-cloud-amd64":    {}, // not in the table
		"6.12.107+deb13-amd64":       {}, // built with other options
		"6.18.44-fc-v657":            {},
		"6.12.0":                     {},
		"":                           {},
	} {
		t.Run(release, func(t *testing.T) {
			r, known := ForRelease(release)
			if got := [2]string{r.Version, r.Arch}; got != want || known != (want[0] != "") {
				t.Errorf("got %v %v, want %v", got, known, want)
			}
		})
	}
}
