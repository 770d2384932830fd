package replay

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// EachSeed calls f for each seed of a recording without cgroups.
func EachSeed(t *testing.T, lines []byte, f func(s *tcp.Socket)) {
	t.Helper()
	for line := range bytes.Lines(lines) {
		if inputOf(line) != inputSeed {
			continue
		}
		var in seedInput
		if err := json.Unmarshal(line, &in); err != nil {
			t.Fatal(err)
		}
		s, err := in.Socket.value(nil)
		if err != nil {
			t.Fatal(err)
		}
		f(&s)
	}
}
