package guest_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// fullJournal sends the records of many connections to a journal that has room for fewer. The journal removes its oldest
// entries; none of the newer ones is missing, and the alert of a storm comes.
func fullJournal(t *testing.T) {
	const drop, count = "/etc/tcpshift/config.d/60-journal.yaml", 900
	const small = "/etc/systemd/journald.conf.d"
	if err := os.MkdirAll(small, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(small) })
	write(t, small+"/small.conf", "[Journal]\nSystemMaxUse=1M\nSystemMaxFileSize=512K\n")
	run(t, "systemctl", "restart", "systemd-journald.service")
	run(t, "journalctl", "--rotate") // the old file keeps its size
	write(t, drop, `outputs:
  - name: journal
    target: "journald:"
    only: [connection, alert, loss]
port: [7000, 7100]
`)
	run(t, "systemctl", "restart", "tcpshift.service")
	pid := property(t, "MainPID")
	c := newClient(t, 4, 7100)
	for range count / 2 { // each has two ends
		if err := c.connect(); err != nil {
			t.Fatal(err)
		}
	}
	var kept []int
	await(t, fmt.Sprintf("%d records are sent", count), func() bool {
		kept = numbers(t, pid)
		return len(kept) > 0 && kept[len(kept)-1] >= count
	})
	for i, n := range kept {
		if n != kept[0]+i {
			t.Fatalf("the journal lacks the record %d:\n%d", kept[0]+i, kept)
		}
	}
	t.Logf("the journal has the records %d to %d", kept[0], kept[len(kept)-1])
	if kept[0] <= 1 {
		t.Error("the test is wrong: the journal has all records, so it was not full")
	}
	stormAlert(t, 5)
}

// numbers returns the seq of each record of a process in the journal.
func numbers(t *testing.T, pid string) (all []int) {
	t.Helper()
	run(t, "journalctl", "--sync")
	out := run(t, "journalctl", "--no-pager", "-q", "-o", "json", "--output-fields=TCPSHIFT_SEQ", "_PID="+pid)
	for line := range strings.Lines(out) {
		var entry struct {
			Seq string `json:"TCPSHIFT_SEQ"`
		}
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if entry.Seq == "" { // a line of standard error
			continue
		}
		n, err := strconv.Atoi(entry.Seq)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, n)
	}
	return all
}
