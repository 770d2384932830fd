package probe

import "testing"

// The features that are switched off for one probe stay on in the list that they came from.
func TestFeatures_WithoutLeavesOriginal(t *testing.T) {
	all := Features{{Name: SocketStorage}, {Name: ResetSent}}
	rest := all.without([]string{ResetSent})
	if !rest.has(SocketStorage) || rest.has(ResetSent) {
		t.Errorf("without %s there are %+v", ResetSent, rest)
	}
	if !all.has(ResetSent) {
		t.Errorf("the original lost %s", ResetSent)
	}
}
