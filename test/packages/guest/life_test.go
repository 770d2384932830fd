package guest_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	config      = "/etc/tcpshift/config.yaml"
	connections = "/var/log/tcpshift/connections.ndjson"
)

// The package is installed as it is: the service runs, and a storm leads to an alert in the journal and in the file. The
// service is reloaded, killed, stopped, upgraded and purged; then nothing of it is left.
func TestService_Life(t *testing.T) {
	if !inGuest() {
		t.Skip("runs in a guest only: make test-packages")
	}
	before, attached := hostFiles(t), links(t)
	// Each step needs those before it.
	for _, step := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"install", install},
		{"storm", func(t *testing.T) {
			id := stormAlert(t, 2)
			await(t, "the alert is in the file of connections", func() bool { return recordWith(t, connections, "alert", id) })
		}},
		{"reload", reload},
		{"kill", func(t *testing.T) { kill(t, attached) }},
		{"watchdog", watchdog},
		{"upgrade", upgrade},
		{"metrics", metrics},
		{"full journal", fullJournal},
		{"purge", func(t *testing.T) { purge(t, before) }},
	} {
		if !t.Run(step.name, step.run) {
			t.Fatalf("%s\n%s", "the next steps need this one", serviceLog())
		}
	}
}

// install installs the package: the service is enabled and runs.
func install(t *testing.T) {
	began := time.Now()
	run(t, "apt-get", "-qq", "install", "-y", payload+"/old.deb")
	t.Logf("apt-get took %.1f s", time.Since(began).Seconds())
	for name, want := range map[string]string{"ActiveState": "active", "SubState": "running", "UnitFileState": "enabled", "NRestarts": "0"} {
		if got := property(t, name); got != want {
			t.Errorf("%s is %q, want %q\n%s", name, got, want, serviceLog())
		}
	}
}

// stormAlert makes a storm to 127.0.0.HOST, waits for its alert in the journal, and returns the id of the alert.
func stormAlert(t *testing.T, host byte) (id string) {
	t.Helper()
	journal := followJournal(t, "TCPSHIFT_TYPE=alert", "TCPSHIFT_KIND=time_wait_storm", "TCPSHIFT_PHASE=open", fmt.Sprintf("TCPSHIFT_PEER_ADDR=127.0.0.%d", host))
	began := time.Now()
	s := startStorm(t, host)
	alert := journal.next()
	t.Logf("the alert came after %.1f s: %v", time.Since(began).Seconds(), alert["MESSAGE"])
	s.end()
	for name, want := range map[string]string{
		"_SYSTEMD_UNIT": "tcpshift.service", "SYSLOG_IDENTIFIER": "tcpshift", "_UID": "0",
		"TCPSHIFT_PEER_PORT": "7000", "TCPSHIFT_ROLE": "client",
		"TCPSHIFT_SERVICE": "guest-tests", "TCPSHIFT_CAPACITY": fmt.Sprint(ports), "TCPSHIFT_CAPACITY_KIND": "ephemeral_ports",
	} {
		if alert[name] != want {
			t.Errorf("%s is %v, want %s", name, alert[name], want)
		}
	}
	if priority := alert["PRIORITY"]; priority != "4" && priority != "2" {
		t.Errorf("the priority is %v", priority)
	}
	if _, ok := alert["TCPSHIFT_SEQ"]; !ok {
		t.Errorf("the entry has no number: %v", alert)
	}
	id, _ = alert["TCPSHIFT_ALERT"].(string)
	return id
}

// recordWith reports whether a file has a record with this value of a key.
func recordWith(t *testing.T, path, key, value string) bool {
	t.Helper()
	for line := range strings.Lines(string(read(t, path))) {
		var record map[string]any
		if json.Unmarshal([]byte(line), &record) == nil && record[key] == value {
			return true
		}
	}
	return false
}

// purge purges the package. The host then has the files that it had before, except for those in noted.
func purge(t *testing.T, before []string) {
	run(t, "apt-get", "-qq", "purge", "-y", "tcpshift")
	after := hostFiles(t)
	for _, path := range after {
		if !slices.Contains(before, path) {
			t.Errorf("the purge leaves %s", path)
		}
	}
	for _, path := range before {
		if !slices.Contains(after, path) {
			t.Errorf("the purge has removed %s", path)
		}
	}
	if out, err := try("systemctl", "cat", "tcpshift.service"); err == nil {
		t.Errorf("systemd still knows the unit:\n%s", out)
	}
}

// noted are files and directories of apt, dpkg and systemd that change with every package or every boot.
var noted = []string{
	"/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp", payload, "/var/log/journal", "/var/lib/systemd",
	"/var/cache/apt", "/var/lib/apt", "/var/log/apt", "/var/log/dpkg.log", "/var/lib/dpkg/status-old", "/var/lib/dpkg/triggers",
	"/var/cache/ldconfig", "/var/cache/debconf", "/var/log/wtmp", "/var/log/btmp", "/var/log/lastlog",
}

// hostFiles returns the paths of all files, except for those in noted, and the lines of /etc/passwd and /etc/group.
func hostFiles(t *testing.T) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir("/", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case os.IsNotExist(err):
			return nil
		case err != nil:
			return err
		case slices.Contains(noted, path) && entry.IsDir():
			return filepath.SkipDir
		case slices.Contains(noted, path):
			return nil
		}
		all = append(all, path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"/etc/passwd", "/etc/group"} {
		for line := range strings.Lines(string(read(t, file))) {
			all = append(all, file+": "+strings.TrimSpace(line))
		}
	}
	return all
}
