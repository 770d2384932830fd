package cli_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// sums are the keys of summary records that are sums over connection records.
var sums = []string{
	"connections", "sent_bytes", "received_bytes", "retransmits", "time_waits", "failed_reset_sent", "failed_reset_received",
	"failed_timeout", "failed_abort", "failed_refused", "failed_no_port", "failed_address_in_use",
}

// addEnd adds a connection record to sums.
func addEnd(total map[string]float64, end map[string]any) {
	total["connections"]++
	for _, key := range []string{"sent_bytes", "received_bytes", "retransmits"} {
		total[key] += end[key].(float64)
	}
	if end["final_state"] == "TIME_WAIT" {
		total["time_waits"]++
	}
	if by, known := end["closed_by"].(string); known && by != "local" && by != "peer" {
		total["failed_"+by]++
	}
}

// groupOf names the row to which a record belongs, as docs/output.md defines it.
func groupOf(r map[string]any) string {
	port := r["peer_port"]
	if r["role"] != "client" {
		port = r["local_port"]
	}
	peer := r["peer_addr"]
	if r["role"] == "listener" {
		peer = nil
	}
	return fmt.Sprint(r["comm"], " ", r["cgroup"], " ", r["role"], " ", peer, " ", port)
}

// sumsOf adds up the connection records, or the rows of the summaries, of a stream by the row to which they belong.
func sumsOf(t *testing.T, s stream, recordType string) map[string]map[string]float64 {
	t.Helper()
	all := make(map[string]map[string]float64)
	for _, r := range s.of(recordType) {
		var members map[string]any
		if err := json.Unmarshal([]byte(r.line), &members); err != nil {
			t.Fatal(err)
		}
		total := all[groupOf(members)]
		if total == nil {
			total = make(map[string]float64)
			all[groupOf(members)] = total
			for _, key := range sums {
				total[key] = 0
			}
		}
		if recordType == "connection" {
			addEnd(total, members)
			continue
		}
		for _, key := range sums {
			total[key] += members[key].(float64)
		}
	}
	return all
}

// The rows of a summary, by owner, role, peer and port, have the sums of the connection records of the
// same stream, in all windows together. Several processes make connections that end in several ways.
func TestSummary_SumsOfConnections(t *testing.T) {
	s := newTraffic(t)
	tr := startTracer(t, append(s.byNetns(), "--summary", "1s", "--only", "connection,summary,loss"))
	s.makeConnections()
	listener := s.n.Listen(tcplab.V4.At(7100))
	for range 40 {
		client := s.n.Dial(tcplab.V4.At(7100))
		child := listener.Accept()
		client.Close()
		child.Close()
	}
	listener.Close()
	// Refused, by processes with a name of their own.
	for port := range 20 {
		cmd := exec.Command("bash", "-c", fmt.Sprintf("exec 3<>/dev/tcp/127.0.0.1/%d", 1+port%4))
		s.n.Do(func() { _ = cmd.Run() })
	}
	s.n.Settle(0)
	stream := tr.stop()
	if losses := stream.of("loss"); len(losses) > 0 {
		t.Errorf("a loss: %s", losses[0].line)
	}
	want, got := sumsOf(t, stream, "connection"), sumsOf(t, stream, "summary")
	if len(want) < 10 {
		t.Errorf("only %d groups: %q", len(want), slices.Sorted(maps.Keys(want)))
	}
	if !maps.EqualFunc(got, want, maps.Equal[map[string]float64, map[string]float64]) {
		t.Errorf("the rows have the sums\n%v\nthe connection records\n%v", got, want)
	}
}

// A summary needs no other record: the kernel emits the ends, and the output has the rows only.
func TestSummary_Only(t *testing.T) {
	s := newTraffic(t)
	path := t.TempDir() + "/records"
	tr := launch(t, append(s.byNetns(), "--summary", "1h", "--only", "summary", "--output", path))
	awaitFile(t, path)
	s.makeConnections()
	tr.signal(syscall.SIGTERM)
	r := tr.wait()
	r.mustEnd(t, 0)
	written, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	stream := parseStream(t, result{stdout: string(written)})
	rows := stream.of("summary")
	if len(rows) == 0 || len(rows) != len(stream.records)-2 {
		t.Errorf("the stream is\n%s", written)
	}
	for _, row := range rows {
		if !strings.Contains(row.line, `"window_ns":`) {
			t.Errorf("not a whole row: %s", row.line)
		}
	}
}

// A service that is restarted within a window, in a cgroup that was removed and made again with the same path, has one
// row, with the connections of both.
func TestSummary_RestartedService(t *testing.T) {
	requireRoot(t)
	root := cgroupHierarchy(t)
	dir := filepath.Join(root, fmt.Sprint("tcpshift-restarted-", os.Getpid()))
	const port, connections = "17116", 3 // nothing listens there
	tr := startTracer(t, append(flags("--port", port), "--summary", "1h", "--only", "connection,summary"))
	ids := make(map[uint64]bool)
	for range 2 {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		ids[info.Sys().(*syscall.Stat_t).Ino] = true
		const service = `echo 0 >"$1/cgroup.procs" || exit 9; for i in $(seq "$3"); do exec 3<>"/dev/tcp/127.0.0.1/$2"; done 2>/dev/null; exit 0`
		out, err := exec.Command("bash", "-c", service, "service", dir, port, strconv.Itoa(connections)).CombinedOutput()
		removeCgroup(t, dir)
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	if len(ids) != 2 {
		t.Skip("the kernel has given the second cgroup the number of the first")
	}
	stream := tr.stop()
	var rows []map[string]any
	for _, r := range stream.of("summary") {
		var row map[string]any
		if err := json.Unmarshal([]byte(r.line), &row); err != nil {
			t.Fatal(err)
		}
		if row["cgroup"] == "/"+filepath.Base(dir) {
			rows = append(rows, row)
		}
	}
	if len(rows) != 1 || rows[0]["connections"] != float64(2*connections) || rows[0]["failed_refused"] != float64(2*connections) {
		t.Errorf("the rows are %v, want one with %d connections; the connection records are %d", rows, 2*connections, len(stream.of("connection")))
	}
}

// cgroupHierarchy returns the mount of the hierarchy whose cgroups records have.
func cgroupHierarchy(t *testing.T) string {
	t.Helper()
	for _, controller := range []string{"memory", "pids", "cpu"} {
		var fs unix.Statfs_t
		if root := "/sys/fs/cgroup/" + controller; unix.Statfs(root, &fs) == nil && fs.Type == unix.CGROUP_SUPER_MAGIC {
			return root
		}
	}
	return cgroupMount(t)
}
