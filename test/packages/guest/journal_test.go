package guest_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// fullJournal sends the records of many connections at once to a journal that may hold fewer: each becomes
// an entry, the oldest ones give way, and the alert of a storm comes as ever.
func fullJournal(t *testing.T) {
	const drop, count, batch = "/etc/tcpshift/config.d/60-journal.yaml", 800, 200
	const small = "/etc/systemd/journald.conf.d"
	if err := os.MkdirAll(small, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(small) })
	write(t, small+"/small.conf", "[Journal]\nSystemMaxUse=1M\nSystemMaxFileSize=512K\n")
	run(t, "systemctl", "restart", "systemd-journald.service")
	write(t, drop, `outputs:
  - name: journal
    target: "journald:"
    only: [connection, alert, loss]
port: [7000, 7100]
`)
	run(t, "systemctl", "restart", "tcpshift.service")
	journal := followJournal(t, "TCPSHIFT_TYPE=connection", "TCPSHIFT_TYPE=loss")
	began := time.Now()
	c := newClient(t, 4, 7100)
	seen := map[string]int{}
	for len(seen) < count {
		// So many at once that a reader of the journal keeps up with the files that are removed.
		for range batch / 2 { // each has two ends
			if err := c.connect(); err != nil {
				t.Fatal(err)
			}
		}
		for n := 0; n < batch; {
			entry := journal.next()
			if entry["TCPSHIFT_TYPE"] != "connection" {
				t.Fatalf("want connections only: %v", entry)
			}
			if strings.Contains(fmt.Sprint(entry["TCPSHIFT_LOCAL_PORT"], entry["TCPSHIFT_PEER_PORT"]), "7100") {
				n++
				seen[fmt.Sprint(entry["TCPSHIFT_CONN"])]++
			}
		}
	}
	t.Logf("%d entries after %.1f s", count, time.Since(began).Seconds())
	for id, n := range seen {
		if n != 1 {
			t.Errorf("%d entries of the connection %s", n, id)
		}
	}
	run(t, "journalctl", "--sync")
	kept := strings.Count(run(t, "journalctl", "--no-pager", "-o", "cat", "--output-fields=TCPSHIFT_CONN", "TCPSHIFT_TYPE=connection"), "\n")
	if kept >= count-1 {
		t.Errorf("the test is wrong: the journal still has %d entries of %d, so it was not full", kept, count)
	}
	stormAlert(t, 5)
}
