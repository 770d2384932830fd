package pipelines_test

import (
	"encoding/base64"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// A topic of Kafka gets each record through rsyslog as it is.
func TestKafka_ThroughRsyslog(t *testing.T) {
	needs(t, "rsyslogd")
	build(t, "brokers", "./kafka", "github.com/nats-io/nats-server/v2", "github.com/nats-io/natscli/nats")
	e := openExample(t, "rsyslog-kafka.conf")
	freshFiles(t)
	topic := e.dir + "/topic"
	e.start("exec kafka 9092 tcpshift >" + topic)
	e.start(e.command("rsyslogd"))
	e.trace()
	makeConnections(t)
	want := e.stop()
	stored := func() []string {
		var lines []string
		for _, each := range readLines(topic) {
			line, err := base64.StdEncoding.DecodeString(each)
			if err != nil {
				t.Fatal(err)
			}
			lines = append(lines, string(line))
		}
		return lines
	}
	e.awaitLines(want, stored)
	more := extremeLines(t, want)
	sendLines(t, "unix", "/run/tcpshift/kafka.sock", more)
	e.awaitLines(append(want, more...), stored)
}

// A stream of JetStream keeps each record as it is.
func TestNATS_JetStream(t *testing.T) {
	needs(t)
	build(t, "brokers", "./kafka", "github.com/nats-io/nats-server/v2", "github.com/nats-io/natscli/nats")
	e := openExample(t, "nats.sh")
	freshFiles(t)
	t.Setenv("HOME", e.dir) // of the client's settings
	e.start(e.command("nats-server"))
	e.await("nats-server", func() bool { return exec.Command("nats", "rtt").Run() == nil })
	e.tcpshift = e.start(e.command("nats.sh"))
	e.await("start of tcpshift", func() bool { return len(e.want()) > 0 })
	makeConnections(t)
	want := e.stop()
	stored := func() []string {
		out, err := exec.Command("nats", "subscribe", "tcpshift.>", "--stream", "tcpshift", "--raw", "--all", "--wait", "1s").Output()
		if err != nil {
			t.Logf("read the stream: %v", err)
		}
		return strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	}
	e.awaitLines(want, stored)
	more := extremeLines(t, want)
	lines := e.dir + "/extreme"
	if err := os.WriteFile(lines, []byte(strings.Join(more, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	e.run(publishCommand(t) + " <" + lines)
	e.awaitLines(append(want, more...), stored)
}

// publishCommand is the publisher of the example.
func publishCommand(t testing.TB) string {
	t.Helper()
	_, command, found := strings.Cut(readText(examplesDir+"/nats.sh"), "|\n")
	if !found {
		t.Fatal("nats.sh has no pipe")
	}
	return strings.TrimSpace(command)
}
