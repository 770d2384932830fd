package fleet_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	sizingBegin = "<!-- make fleet-sizing writes from here -->\n"
	sizingEnd   = "<!-- to here -->\n"
	// sizingTarget is the number of records to which the measurements are extrapolated.
	sizingTarget = 1_000_000_000
	// sizingRuns is how often each query runs; the shortest time counts, because other programs only add to it.
	sizingRuns = 5
	sizingStep = 500_000 // records of one INSERT
	// sizingLeast is the least number of records from which times are extrapolated: with fewer, chance has too much weight.
	sizingLeast = 10_000_000
)

// sizingQueries are the questions whose time is measured.
var sizingQueries = []string{"time_wait", "runs_out_next", "connect_failures", "close_wait", "other_end", "yesterday", "open_alerts", "missing"}

// sizes has the measurements with one number of records.
type sizes struct {
	rows    int
	load    time.Duration
	bytes   map[string]float64 // on disk, by table
	seconds map[string]float64 // the shortest run, by query
}

// store is a ClickHouse with the schema.
type store interface {
	run(statement string)
	json(statement string) string // the answer, with FORMAT JSON
}

// TestSizing measures how many bytes records take on disk, and how long each query takes, with a quarter, half and all of
// -rows records, in 18.16 and in chDB. It fails if a record takes more bytes than its line.
func TestSizing(t *testing.T) {
	c := startCluster(t, 1)
	c.execute(0, "legacy.sql")
	old := measureSizes(t, &legacyStore{c}, "of 18.16")
	today := measureSizes(t, startModernStore(t), "of chDB")
	for _, s := range [][]sizes{old, today} {
		if last := s[len(s)-1]; last.bytes["connection"]/float64(last.rows) > 596 {
			t.Errorf("a connection takes %.0f bytes, more than its line", last.bytes["connection"]/float64(last.rows))
		}
	}
	text := sizingTables(old, today)
	t.Log("\n" + text)
	if *sizingDoc != "" {
		writeSizing(t, text)
	}
}

// measureSizes loads the records into a store in three parts, and measures after each part.
func measureSizes(t *testing.T, s store, of string) (all []sizes) {
	t.Helper()
	s.run(sizingAlerts(max(1000, *sizingRows/1000)))
	done, load := 0, time.Duration(0)
	for _, part := range []int{4, 2, 1} {
		for end := *sizingRows / part; done < end; {
			next := min(done+sizingStep, end)
			began := time.Now()
			s.run(sizingRecords(done, next))
			load += time.Since(began)
			done = next
		}
		measured := sizes{load: load, bytes: make(map[string]float64), seconds: make(map[string]float64)}
		measured.rows = int(number(t, only(t, s.json("SELECT count() AS n FROM tcpshift.connection"))["n"]))
		for _, r := range answer(t, s.json("SELECT table, sum(bytes_on_disk) AS n FROM system.parts WHERE active AND database = 'tcpshift' GROUP BY table")).Data {
			measured.bytes[fmt.Sprint(r["table"])] = number(t, r["n"])
		}
		subject := only(t, s.json("SELECT boot_id, conn, toString(ts_ns) AS ts_ns FROM tcpshift.endpoint WHERE role = 'server' LIMIT 1"))
		for _, name := range sizingQueries {
			query := strings.NewReplacer("'BOOT_ID'", fmt.Sprintf("'%s'", subject["boot_id"]), "'CONN'", fmt.Sprintf("'%s'", subject["conn"]),
				"= TS_NS", fmt.Sprintf("= %s", subject["ts_ns"])).Replace(question(t, name))
			var times []float64
			for range sizingRuns {
				reply := answer(t, s.json(query))
				times = append(times, reply.Statistics.Elapsed)
				if name == "other_end" && len(reply.Data) != 1 {
					t.Errorf("%s: %d other ends, want 1", of, len(reply.Data))
				}
			}
			measured.seconds[name] = slices.Min(times)
		}
		t.Logf("%s: %+v", of, measured)
		all = append(all, measured)
	}
	return all
}

// statistics is an answer with FORMAT JSON.
type statistics struct {
	Data       []row
	Statistics struct{ Elapsed float64 }
}

// answer decodes an answer with FORMAT JSON.
func answer(t *testing.T, text string) (a statistics) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return a
}

// only returns the row of an answer that has exactly one.
func only(t *testing.T, text string) row {
	t.Helper()
	a := answer(t, text)
	if len(a.Data) != 1 {
		t.Fatalf("%d rows, want 1", len(a.Data))
	}
	return a.Data[0]
}

type legacyStore struct{ c *cluster }

func (s *legacyStore) run(statement string) {
	s.c.t.Helper()
	if err := s.c.client(0, "--query="+statement).Run(); err != nil {
		s.c.t.Fatalf("%.300s: %v", statement, err)
	}
}

func (s *legacyStore) json(statement string) string {
	s.c.t.Helper()
	out, err := s.c.client(0, "--database=tcpshift", "--format=JSON", "--query="+statement).output()
	if err != nil {
		s.c.t.Fatalf("%.300s: %v", statement, err)
	}
	return out
}

// sizingTables returns the measurements as text for docs/fleet.md.
func sizingTables(old, today []sizes) string {
	var b strings.Builder
	last, lastToday := old[len(old)-1], today[len(today)-1]
	fmt.Fprintf(&b, "| table | bytes a connection record, 18.16 | today's | GB for 1,000,000,000, 18.16 | today's |\n|---|---|---|---|---|\n")
	var tables []string
	for name := range last.bytes {
		tables = append(tables, name)
	}
	slices.Sort(tables)
	line := func(name string, n, m float64) {
		n, m = n/float64(last.rows), m/float64(lastToday.rows)
		fmt.Fprintf(&b, "| %s | %.1f | %.1f | %.1f | %.1f |\n", name, n, m, n*sizingTarget/1e9, m*sizingTarget/1e9)
	}
	var sum, sumToday float64
	for _, name := range tables {
		line("`"+name+"`", last.bytes[name], lastToday.bytes[name])
		sum += last.bytes[name]
		sumToday += lastToday.bytes[name]
	}
	line("all", sum, sumToday)
	fmt.Fprintf(&b, "\n%d records took %.0f s to insert in 18.16, and %.0f s in chDB: %.0f and %.0f a second.\n\n",
		last.rows, last.load.Seconds(), lastToday.load.Seconds(), float64(last.rows)/last.load.Seconds(), float64(lastToday.rows)/lastToday.load.Seconds())
	fmt.Fprintf(&b, "| question | 18.16, seconds for %d | for %d | for %d | for 1,000,000,000 | chDB for %d | for 1,000,000,000 |\n|---|---|---|---|---|---|---|\n",
		old[0].rows, old[1].rows, last.rows, lastToday.rows)
	for _, name := range sizingQueries {
		fmt.Fprintf(&b, "| `%s` | %.3f | %.3f | %.3f | %s | %.3f | %s |\n", name,
			old[0].seconds[name], old[1].seconds[name], last.seconds[name], extrapolate(old, name), lastToday.seconds[name], extrapolate(today, name))
	}
	return b.String()
}

// extrapolate returns how many seconds a query would take with sizingTarget records, by a least-squares line through the
// measurements, or "-" if there are fewer than sizingLeast records.
func extrapolate(all []sizes, name string) string {
	if all[len(all)-1].rows < sizingLeast {
		return "-"
	}
	var n, x, y, xx, xy float64
	for _, s := range all {
		n++
		x += float64(s.rows)
		y += s.seconds[name]
		xx += float64(s.rows) * float64(s.rows)
		xy += float64(s.rows) * s.seconds[name]
	}
	slope := max(0, (n*xy-x*y)/(n*xx-x*x))
	return fmt.Sprintf("%.1f", max(0, y/n-slope*x/n)+slope*sizingTarget)
}

// writeSizing writes the tables into the page of -doc, with kernel, architecture, number of CPUs and date.
func writeSizing(t *testing.T, text string) {
	t.Helper()
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		t.Fatal(err)
	}
	page := readFile(t, *sizingDoc)
	before, rest, found := strings.Cut(page, sizingBegin)
	_, after, foundEnd := strings.Cut(rest, sizingEnd)
	if !found || !foundEnd {
		t.Fatalf("%s has no place for the tables", *sizingDoc)
	}
	head := fmt.Sprintf("%s, Linux %s %s, %d CPUs, ClickHouse 18.16 of Debian 12 and chDB 26.7:\n\n",
		time.Now().UTC().Format(time.DateOnly), unix.ByteSliceToString(uts.Release[:]), runtime.GOARCH, runtime.NumCPU())
	if err := os.WriteFile(filepath.Clean(*sizingDoc), []byte(before+sizingBegin+"\n"+head+text+"\n"+sizingEnd+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
