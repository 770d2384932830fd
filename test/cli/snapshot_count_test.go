package cli_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// The counts of a snapshot, by the same keys, are those of its list of sockets, and the largest are first.
func TestSnapshot_CountBy(t *testing.T) {
	requireRoot(t)
	g := newEveryState(t)
	netns := fmt.Sprint(g.n.Inode())
	list, counts := run(flags("snapshot", "--netns", netns)), run(flags("snapshot", "--netns", netns, "--count-by", "state,comm,peer"))
	list.mustEnd(t, 0)
	counts.mustEnd(t, 0)
	groupOf := func(line string) (group string, members map[string]any) {
		if err := json.Unmarshal([]byte(line), &members); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		return fmt.Sprint(members["state"], members["comm"], members["peer_addr"], members["peer_port"]), members
	}
	want, got := make(map[string]int), make(map[string]int)
	for line := range strings.Lines(list.stdout) {
		group, _ := groupOf(line)
		want[group]++
	}
	var sizes []int
	for line := range strings.Lines(counts.stdout) {
		group, members := groupOf(line)
		size := int(members["sockets"].(float64))
		if members["type"] != "socket_count" || got[group] != 0 {
			t.Errorf("an unexpected record: %s", line)
		}
		got[group], sizes = size, append(sizes, size)
	}
	slices.Reverse(sizes)
	if len(want) < 5 || !maps.Equal(got, want) || !slices.IsSorted(sizes) {
		t.Errorf("the counts are\n%v\nthe list has\n%v", counts, list)
	}
	text := run(flags("snapshot", "--netns", netns, "--count-by", "state", "--format", "text"))
	text.mustEnd(t, 0)
	if !strings.HasPrefix(text.stdout, "SOCKETS STATE\n") || !strings.Contains(text.stdout, " LISTEN\n") {
		t.Errorf("the text is wrong: %v", text)
	}
}
