package pipelines_test

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/otlp"
)

var withLoki = flag.Bool("loki", false, "run the example for Loki, whose build takes some minutes")

// Loki stores each record with its exact time, its body as the line, and all else as structured metadata.
func TestLoki_OTLP(t *testing.T) {
	if !*withLoki {
		t.Skip("the build of Loki takes some minutes: make test-long runs this test")
	}
	needs(t)
	build(t, "loki", "github.com/grafana/loki/v3/cmd/loki")
	e := openExample(t, "loki.yaml")
	freshFiles(t)
	e.start(e.command("loki "))
	e.await("ready Loki", func() bool {
		answer, err := http.Get("http://127.0.0.1:3100/ready")
		if err != nil {
			return false
		}
		answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	})
	e.trace()
	makeConnections(t)
	lines := e.stop()
	more := withRecentTimes(extremeLines(t, lines))
	host := must(os.Hostname())
	exportLines(t, otlp.Config{Address: "127.0.0.1:3100", HTTP: true, Path: "/otlp", Host: host}, more)
	var want []storedEntry
	for _, line := range append(lines, more...) {
		want = append(want, lokiEntryOf(t, line))
	}
	sortEntries(want)
	var got []storedEntry
	e.await("record of each line", func() bool { got = queryLoki(t); return len(got) >= len(want) })
	if len(got) != len(want) {
		t.Errorf("%d records are stored, want %d", len(got), len(want))
	}
	for i := range min(len(got), len(want)) {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Fatalf("record %d is stored as\n%+v\nwant\n%+v", i, got[i], want[i])
		}
	}
}

// withRecentTimes gives each line a time that differs from that of the one before in its last nanosecond. Loki refuses
// records that are a week old.
func withRecentTimes(lines []string) (changed []string) {
	key := regexp.MustCompile(`"timestamp":"[^"]*"`)
	at := time.Now().UTC().Truncate(time.Second)
	for i, line := range lines {
		stamp := at.Add(time.Duration(i + 1)).Format(time.RFC3339Nano)
		changed = append(changed, key.ReplaceAllString(line, `"timestamp":"`+stamp+`"`))
	}
	return changed
}

// storedEntry is an entry of a stream of Loki.
type storedEntry struct {
	Time     int64 // ns
	Line     string
	Metadata map[string]string
}

func (e storedEntry) seq() int {
	n, _ := strconv.Atoi(e.Metadata["tcpshift_seq"])
	return n
}

func sortEntries(all []storedEntry) {
	slices.SortFunc(all, func(a, b storedEntry) int {
		return cmp.Compare(a.seq(), b.seq())
	})
}

// lokiEntryOf is what a line of the schema otel must become: the keys have _ instead of dots, the values are text.
// Loki keeps no event name, and renames what has the name of a label. What each output writes at a moment of its
// own is left out.
func lokiEntryOf(t testing.TB, line string) storedEntry {
	t.Helper()
	record := otlpOf(t, line)
	entry := storedEntry{Time: record["time"].(int64), Metadata: map[string]string{
		"severity_text": fmt.Sprint(record["text"]), "severity_number": fmt.Sprint(record["number"]),
	}}
	if body, found := record["body"]; found {
		entry.Line = body.(string)
	}
	for key, value := range record["attributes"].(map[string]any) {
		text, isText := value.(string)
		if !isText {
			text = string(must(json.Marshal(value)))
		}
		text = strings.ReplaceAll(text, "\ufffd", " ") // what stands for a byte that is not UTF-8
		entry.Metadata[strings.ReplaceAll(key, ".", "_")] = text
	}
	return entry.comparable()
}

// comparable leaves out what the two outputs of one run do not have in common, and what Loki adds.
func (e storedEntry) comparable() storedEntry {
	if e.Metadata["tcpshift_fired"] != "" { // stats or stop
		e.Time = 0
		delete(e.Metadata, "tcpshift_written_bytes")
	}
	if host, found := e.Metadata["host_name_extracted"]; found {
		e.Metadata["host_name"] = host
	}
	added := []string{"observed_timestamp", "detected_level", "scope_name", "scope_version", "host_name_extracted"}
	for _, key := range append(added, "service_name", "service_name_extracted", "service_version", "host_arch", "os_type") { // of the resource
		delete(e.Metadata, key)
	}
	return e
}

// queryLoki returns all entries of the streams of tcpshift.
func queryLoki(t testing.TB) (all []storedEntry) {
	t.Helper()
	query := url.Values{
		"query": {`{service_name="tcpshift"}`}, "direction": {"forward"}, "limit": {"5000"},
		"start": {strconv.FormatInt(time.Now().Add(-time.Hour).UnixNano(), 10)},
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1:3100/loki/api/v1/query_range?"+query.Encode(), http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-Loki-Response-Encoding-Flags", "categorize-labels")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var found struct {
		Data struct {
			Result []struct {
				Stream map[string]string   `json:"stream"`
				Values [][]json.RawMessage `json:"values"`
			} `json:"result"`
		} `json:"data"`
	}
	if err := json.NewDecoder(answer.Body).Decode(&found); err != nil {
		t.Fatal(err)
	}
	for _, stream := range found.Data.Result {
		if len(stream.Stream) > 2 {
			t.Fatalf("a stream has the labels %v, want service_name and host_name only", stream.Stream)
		}
		for _, value := range stream.Values {
			all = append(all, decodeEntry(t, value))
		}
	}
	sortEntries(all)
	return all
}

// decodeEntry decodes a value of an answer: the time in ns, the line, and an object with the metadata.
func decodeEntry(t testing.TB, value []json.RawMessage) storedEntry {
	t.Helper()
	var entry storedEntry
	var ns string
	var rest struct {
		StructuredMetadata map[string]string `json:"structuredMetadata"`
	}
	for i, into := range []any{&ns, &entry.Line, &rest} {
		if err := json.Unmarshal(value[i], into); err != nil {
			t.Fatalf("an entry is %s: %v", value, err)
		}
	}
	var err error
	if entry.Time, err = strconv.ParseInt(ns, 10, 64); err != nil {
		t.Fatal(err)
	}
	entry.Metadata = rest.StructuredMetadata
	return entry.comparable()
}
