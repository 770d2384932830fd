package pipelines_test

import (
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// buildBrokers builds the brokers and the client of NATS.
func buildBrokers(t testing.TB) {
	t.Helper()
	build(t, "brokers", "./kafka", "github.com/nats-io/nats-server/v2", "github.com/nats-io/natscli/nats")
}

// A topic of Kafka gets each record as it is.
func TestKafka_Files(t *testing.T) {
	needs(t, "kcat")
	openKafka(t, "kafka.sh").testFiles("kafka.sh")
}

// Nothing is missing in the topic, though the broker and the publisher are killed.
func TestKafka_Killed(t *testing.T) {
	needs(t, "kcat")
	openKafka(t, "kafka.sh").testKilled("kafka.sh")
}

// A topic of Kafka gets each record through rsyslog as it is.
func TestKafka_ThroughRsyslog(t *testing.T) {
	needs(t, "rsyslogd")
	b := openKafka(t, "rsyslog-kafka.conf")
	b.start(b.server)
	b.start(b.command("rsyslogd"))
	b.trace()
	makeConnections(t)
	want := b.stop()
	b.awaitLines(want, b.stored)
	more := extremeLines(t, want)
	sendLines(t, "unix", "/run/tcpshift/kafka.sock", more)
	b.awaitLines(append(want, more...), b.stored)
}

// A stream of JetStream keeps each record as it is.
func TestNATS_JetStream(t *testing.T) {
	needs(t)
	openNATS(t).testFiles("nats.sh")
}

// Nothing is missing in the stream, though the server and the publisher are killed.
func TestNATS_Killed(t *testing.T) {
	needs(t)
	openNATS(t).testKilled("nats.sh")
}

// broker is an example that sends records to a broker.
type broker struct {
	*example
	server string          // its command
	ready  func() bool     // whether it answers
	stored func() []string // the records that it has
}

func openKafka(t testing.TB, name string) *broker {
	t.Helper()
	buildBrokers(t)
	e := openExample(t, name)
	freshFiles(t)
	topic := e.dir + "/topic"
	return &broker{
		example: e, server: "exec kafka 9092 tcpshift " + e.dir + "/data >" + topic,
		ready: func() bool { return true },
		stored: func() (lines []string) {
			for _, each := range readLines(topic) {
				line, err := base64.StdEncoding.DecodeString(each)
				if err != nil {
					t.Fatal(err)
				}
				lines = append(lines, string(line))
			}
			return lines
		},
	}
}

func openNATS(t *testing.T) *broker {
	t.Helper()
	buildBrokers(t)
	e := openExample(t, "nats.sh")
	freshFiles(t)
	t.Setenv("HOME", e.dir) // of the client's settings
	if err := os.RemoveAll("/var/lib/nats"); err != nil {
		t.Fatal(err)
	}
	return &broker{
		example: e, server: "exec " + e.command("nats-server"),
		ready: func() bool { return exec.Command("nats", "rtt").Run() == nil },
		stored: func() []string {
			out, err := exec.Command("nats", "subscribe", "tcpshift.>", "--stream", "tcpshift", "--raw", "--all", "--wait", "1s").Output()
			if err != nil {
				t.Logf("read the stream: %v", err)
			}
			return strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
		},
	}
}

// startServer starts the broker, and waits until it answers.
func (b *broker) startServer() *process {
	b.t.Helper()
	p := b.start(b.server)
	b.await("answer of the broker", b.ready)
	return p
}

// testFiles shows that the broker has each record of the files that rotation leaves.
func (b *broker) testFiles(publisher string) {
	b.t.Helper()
	b.startServer()
	b.start("exec " + b.command("sh "+publisher))
	b.trace()
	makeConnections(b.t)
	want := b.stop()
	b.rotateLast()
	b.awaitLines(want, b.stored)
	more := extremeLines(b.t, want)
	writeRotated(b.t, more)
	b.awaitLines(append(want, more...), b.stored)
	b.await("removal of the files", func() bool { return len(rotatedFiles()) == 0 })
}

// rotateLast gives the last file a name as rotation does, behind those of all others.
func (b *broker) rotateLast() {
	b.t.Helper()
	if err := os.Rename(followed, followed+".29991231T000000.000000000Z"); err != nil {
		b.t.Fatal(err)
	}
}

func rotatedFiles() []string { return must(filepath.Glob(followed + ".2*")) }

// awaitPublished waits until the publisher has removed another file.
func (b *broker) awaitPublished() {
	b.t.Helper()
	before := rotatedFiles()
	b.await("removal of a file", func() bool {
		for _, each := range before {
			if _, err := os.Stat(each); err != nil {
				return true
			}
		}
		if len(before) == 0 {
			before = rotatedFiles()
		}
		return false
	})
}

// testKilled kills the broker and the publisher while connections come, and starts them again. The broker has each
// record, at least once.
func (b *broker) testKilled(publisher string) {
	b.t.Helper()
	server := b.startServer()
	running := b.start(b.command("sh " + publisher))
	age := regexp.MustCompile(`rotate-age=[^&' ]+`)
	b.tcpshift = b.start(age.ReplaceAllString(b.command("tcpshift --"), "rotate-age=1s"))
	b.await("start of tcpshift", func() bool { return len(b.want()) > 0 })
	end := b.connectAlways()
	for range 2 {
		b.awaitPublished()
		server.kill()
		files := len(rotatedFiles())
		b.await("files while the broker is gone", func() bool { return len(rotatedFiles()) > files+2 })
		server = b.startServer()
		b.awaitPublished()
		running.kill()
		running = b.start(b.command("sh " + publisher))
	}
	end()
	want := b.stop()
	b.rotateLast()
	b.await("removal of the files", func() bool { return len(rotatedFiles()) == 0 })
	var missing []string
	var stored []string
	for began := time.Now(); time.Since(began) < waitLimit/4; time.Sleep(100 * time.Millisecond) {
		stored = b.stored()
		if missing = missingLines(want, stored); len(missing) == 0 {
			break
		}
	}
	if len(missing) > 0 {
		b.t.Errorf("%d of %d records are missing, the first is %s", len(missing), len(want), missing[0])
	}
	b.t.Logf("%d records, %d stored", len(want), len(stored))
}
