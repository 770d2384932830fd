package look_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	pictures = flag.String("pictures", "", "write the pictures of the docs into this directory, of a storm that takes two minutes")
	topLimit = flag.Float64("top-limit", 40, "the part of a core, in percent, from which TestTop_Cost fails")
	recorded = flag.String("recording", "", "make the pictures of this recording of recordStorm instead of a new storm, but for that of the live page")
)

// The page of a real storm, in a real browser: its numbers are those of jq, it makes no request, names are text, and it
// can be used by keyboard, in light and dark.
func TestReport_Storm(t *testing.T) {
	recording := sharedStorm(t)
	page := makePage(t, recording)
	t.Run("numbers", func(t *testing.T) { checkNumbers(t, page, recording) })
	t.Run("series", func(t *testing.T) { checkSeries(t, page, recording) })
	t.Run("hostile names", func(t *testing.T) { checkNames(t, page) })
	t.Run("keyboard", func(t *testing.T) { checkKeyboard(t, page, recording) })
	t.Run("light and dark", func(t *testing.T) { checkColors(t, page) })
	t.Run("top", func(t *testing.T) { checkTopOfRecording(t, recording) })
	t.Run("missing records", func(t *testing.T) { checkMissing(t, recording) })
}

const (
	// connections is a jq filter for the records of the connections that the page counts.
	connections = `map(select(.type == "connection" and .role != "listener"))`
	// failed is a jq filter for the connections that count as failed.
	failed = `map(select(.closed_by | IN("reset_sent", "reset_received", "timeout", "abort", "refused", "no_port", "address_in_use")))`
	// service is a jq filter that names the service of a connection as the page does, on a host without containers.
	service = `(if (.unit // "session-") | test("^(session-|user@)") then .comm // "not known" else .unit | sub("\\.[^.]*$"; "") end)`
)

// rows is what a column of a table of the page has.
const rows = `Object.fromEntries([...document.querySelectorAll('#%s tbody tr')].map(r => [r.cells[0].textContent, Number(r.cells[%d].dataset.v)]).filter(r => r[1]))`

// numbers are what a page has, and the same by jq.
var numbers = map[string]struct{ page, jq string }{
	"connections":       {`Number(document.getElementById('n-connections').value)`, connections + ` | length`},
	"failed":            {`Number(document.getElementById('n-failed').value)`, connections + ` | ` + failed + ` | length`},
	"retransmits":       {`Number(document.getElementById('n-retransmits').value)`, connections + ` | map(.retransmits) | add`},
	"alerts":            {`Number(document.getElementById('n-alerts').value)`, `map(select(.type == "alert") | .alert) | unique | length`},
	"missing":           {`Number(document.getElementById('n-missing').value)`, `map(select(.type == "loss")) | length`},
	recordsByType:       {`Object.fromEntries([...document.querySelectorAll('[data-type]')].map(h => [h.dataset.type, Number(h.nextSibling.dataset.v)]))`, `group_by(.type) | map({key: .[0].type, value: length}) | from_entries`},
	"by closed_by":      {`Object.fromEntries([...document.querySelectorAll('[data-way]')].map(h => [h.dataset.way, Number(h.nextSibling.dataset.v)]))`, connections + ` | group_by(.closed_by) | map({key: (.[0].closed_by // "not known"), value: length}) | from_entries`},
	"services":          {fmt.Sprintf(rows, "services", 1), connections + ` | group_by(` + service + `) | map({key: (.[0] | ` + service + `), value: length}) | from_entries`},
	"failed services":   {fmt.Sprintf(rows, "services", 2), connections + ` | ` + failed + ` | group_by(` + service + `) | map({key: (.[0] | ` + service + `), value: length}) | from_entries`},
	"destinations":      {fmt.Sprintf(rows, "destinations", 1), connections + ` | map(select(.role == "client")) | group_by(.peer_port) | map({key: "\(.[0].peer_addr):\(.[0].peer_port)", value: length}) | from_entries`},
	"endpoints":         {fmt.Sprintf(rows, "endpoints", 1), connections + ` | map(select(.role == "server")) | group_by(.local_port) | map({key: "\(.[0].local_addr):\(.[0].local_port)", value: length}) | from_entries`},
	"bytes of services": {fmt.Sprintf(rows, "services", 8), connections + ` | group_by(` + service + `) | map({key: (.[0] | ` + service + `), value: (map(.sent_bytes) | add)} | select(.value > 0)) | from_entries`},
}

const recordsByType = "records by type"

func checkNumbers(t *testing.T, page, recording string) {
	b := newBrowser(t)
	b.open(page, "light", 900)
	b.compareNumbers(recording)
}

// compareNumbers compares the numbers of the page that is open with those of jq.
func (b *browser) compareNumbers(recording string, but ...string) {
	b.t.Helper()
	for name, c := range numbers {
		if slices.Contains(but, name) {
			continue
		}
		var got, want any
		b.evaluate(&got, c.page)
		jq(b.t, &want, recording, c.jq)
		if !reflect.DeepEqual(got, want) {
			b.t.Errorf("%s: the page has %v, jq %v", name, got, want)
		}
	}
}

// The charts have, second by second, what jq counts.
func checkSeries(t *testing.T, page, recording string) {
	b := newBrowser(t)
	b.open(page, "light", 900)
	b.compareSeries(recording)
}

func (b *browser) compareSeries(recording string) {
	t := b.t
	t.Helper()
	const bySecond = `((lists) => { const sums = {}; for (const list of lists) list.forEach((n, i) => { if (!n) return; const at = iso(Math.floor(data.Series.Start + (i + 0.5) * data.Series.Width)).slice(0, 19); sums[at] = (sums[at] || 0) + n; }); return sums; })`
	const jqBySecond = ` | group_by(.time[0:19]) | map({key: .[0].time[0:19], value: length}) | from_entries`
	for name, c := range map[string]struct{ page, jq string }{
		"ended":   {bySecond + `(data.Series.Ended)`, connections + jqBySecond},
		"failed":  {bySecond + `(data.Failures.map(f => data.Series.Ended[data.Ends.indexOf(f)]))`, connections + ` | ` + failed + jqBySecond},
		"no_port": {bySecond + `([data.Series.Ended[data.Ends.indexOf('no_port')]])`, connections + ` | map(select(.closed_by == "no_port"))` + jqBySecond},
		"opened":  {bySecond + `([data.Series.Opened])`, `map(select(.type == "transition" and (.new_state == "SYN_SENT" or .old_state == "LISTEN" and .new_state == "SYN_RECV")))` + jqBySecond},
	} {
		var got, want map[string]int
		b.evaluate(&got, c.page)
		jq(t, &want, recording, c.jq)
		if !reflect.DeepEqual(got, want) || len(want) == 0 {
			t.Errorf("%s: the page has %v, jq %v", name, got, want)
		}
	}
	var open, want int
	b.evaluate(&open, `data.Series.States[data.States.indexOf('CLOSE_WAIT')].at(-1)`)
	jq(t, &want, recording, `map(select(.type == "transition" and .new_state != "LISTEN")) | group_by(.conn) | map(select(.[-1].new_state == "CLOSE_WAIT")) | length`)
	if open != want {
		t.Errorf("%d sockets are in CLOSE_WAIT at the end, by jq %d", open, want)
	}
	if n := b.is(`document.querySelectorAll('.plot canvas').length === 4`); !n {
		t.Error("there are not four charts")
	}
}

func checkNames(t *testing.T, page string) {
	b := newBrowser(t)
	b.open(page, "light", 900)
	b.checkNames()
}

// checkNames checks that names of the storm are text, and that nothing that is added to the page runs.
func (b *browser) checkNames() {
	t := b.t
	t.Helper()
	for _, name := range []string{hostileTag, hostileScript} {
		quoted, err := json.Marshal(name)
		if err != nil {
			t.Fatal(err)
		}
		if !b.is(`[...document.querySelectorAll('#services .name')].some(n => n.textContent === ` + string(quoted) + `)`) {
			t.Errorf("the page does not have the service %q", name)
		}
		if !b.is(`(document.getElementById('find-text').value = ` + string(quoted) + `, document.getElementById('find-text').oninput(), document.querySelectorAll('#list tr.row').length > 0)`) {
			t.Errorf("no connection of %q is found", name)
		}
	}
	if b.is(`document.querySelector('td b, th b, button b, td i:not(.track i)')`) {
		t.Error("a name is markup")
	}
	// What the policy is for: nothing that is added to the page runs or loads.
	if b.is(`(() => { const s = document.createElement('script'); try { s.textContent = 'window.owned = true'; document.body.append(s); } catch {} return window.owned; })()`) {
		t.Error("a script that is added to the page runs")
	}
	if !slices.ContainsFunc(b.last.Problems, isOfPolicy) {
		t.Errorf("the policy does not report the script: %q", b.last.Problems)
	}
	b.last.Problems = nil
}

// isOfPolicy reports whether the browser says that a policy has kept something from running.
func isOfPolicy(problem string) bool {
	return strings.Contains(problem, "TrustedScript") || strings.Contains(problem, "Content Security Policy")
}

func checkKeyboard(t *testing.T, page, recording string) {
	b := newBrowser(t)
	b.open(page, "light", 900)
	reached := func(what, expression string) {
		t.Helper()
		for range 120 {
			if b.is(expression) {
				return
			}
			b.press("Tab")
		}
		t.Fatalf("Tab does not reach %s", what)
	}
	reached("an alert of the time line", `document.activeElement.closest('.lane')`)
	b.press("Enter")
	b.await(`document.querySelector('details.alert[open]')`, "Enter on a bar of the time line does not open its alert")
	reached("a chart", `document.activeElement.dataset.chart === 'rate'`)
	b.press("Home", "ArrowRight", "ArrowRight")
	var reading string
	b.evaluate(&reading, `document.getElementById('reading').textContent`)
	if !strings.Contains(reading, "opened ") {
		t.Errorf("the chart reads %q", reading)
	}
	const shownBins = `document.querySelector('.numbers[open] tbody')?.rows.length`
	reached("the numbers", `document.activeElement.closest('.numbers')`)
	b.press("Enter")
	b.await(shownBins+` === data.Series.Opened.length`, "the table behind the chart does not have a row for each bin")
	b.do(step{Evaluate: `document.querySelector('[data-chart=rate]').focus(), 0`})
	b.press("+", "+")
	b.await(`charts.shown().max - charts.shown().min < data.Series.Opened.length * data.Series.Width / 3`, "+ does not zoom")
	b.await(shownBins+` < data.Series.Opened.length / 2`, "the table behind the chart does not follow the zoom")
	b.press("0")
	reached("a title of a table", `document.activeElement.matches('#services button.sort') && document.activeElement.textContent === 'Failed'`)
	b.press("Enter")
	var order []float64
	b.evaluate(&order, `[...document.querySelectorAll('#services tbody tr:not(.other)')].map(r => Number(r.cells[2].dataset.v))`)
	for i := 1; i < len(order); i++ {
		if order[i] > order[i-1] {
			t.Errorf("the services are not sorted by failures: %v", order)
		}
	}
	b.do(step{Evaluate: `document.querySelector('#list tr.row button').focus(), 0`})
	b.press("Enter")
	var got struct {
		Conn  string
		Steps []string
	}
	b.evaluate(&got, `({Conn: document.querySelector('tr.life dd').textContent, Steps: [...document.querySelectorAll('tr.life .steps tbody tr')].map(r => r.cells[0].textContent + ' ' + r.cells[2].textContent)})`)
	var want []string
	jq(t, &want, recording, `map(select(.type == "transition" and .conn == "`+got.Conn+`") | "\(.time[11:26]) \(.old_state) → \(.new_state)")`)
	if !reflect.DeepEqual(got.Steps, want) || len(want) == 0 {
		t.Errorf("the connection %s has %q, by jq %q", got.Conn, got.Steps, want)
	}
}

func checkColors(t *testing.T, page string) {
	b := newBrowser(t)
	var backgrounds [2]string
	for i, scheme := range []string{"light", "dark"} {
		b.open(page, scheme, 900)
		b.evaluate(&backgrounds[i], `getComputedStyle(document.body).backgroundColor`)
		// Text must be legible: WCAG 2.2 asks for a contrast of 4.5.
		var worst struct {
			Contrast float64
			Text     string
		}
		b.evaluate(&worst, `(() => {
			const light = c => { const [r, g, b] = c.match(/[\d.]+/g).map(v => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
			const below = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (!/^rgba.*, 0\)$/.test(c)) return c; } return 'rgb(255,255,255)'; };
			let worst = {Contrast: 21, Text: ''};
			for (const e of document.querySelectorAll('h1,h2,p,a,dt,dd,th,td,summary,.soft,.badge,.lane button:not(.outside),button.link')) {
				if (!e.textContent.trim() || !e.checkVisibility()) continue;
				const a = light(getComputedStyle(e).color), b = light(below(e));
				const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
				if (contrast < worst.Contrast) worst = {Contrast: contrast, Text: e.tagName + ' ' + e.className + ' ' + e.textContent};
			}
			return worst;
		})()`)
		if worst.Contrast < 4.5 {
			t.Errorf("%s: the lowest contrast is %.2f, of %s", scheme, worst.Contrast, worst.Text)
		}
	}
	if backgrounds[0] == backgrounds[1] {
		t.Errorf("light and dark have the background %s", backgrounds[0])
	}
}

// Records that are missing in a recording are shown at their time.
func checkMissing(t *testing.T, recording string) {
	text, err := os.ReadFile(recording)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(text, []byte("\n"))
	from := len(lines) / 2
	var before, after struct{ Time string }
	for i, v := range []any{&before, &after} {
		if err := json.Unmarshal(lines[from+i*50], v); err != nil {
			t.Fatal(err)
		}
	}
	gapped := filepath.Join(t.TempDir(), "gapped.ndjson")
	if err := os.WriteFile(gapped, bytes.Join(append(lines[:from:from], lines[from+50:]...), nil), 0o600); err != nil {
		t.Fatal(err)
	}
	b := newBrowser(t)
	b.open(makePage(t, gapped), "light", 900)
	var got [][2]any
	b.evaluate(&got, `data.Series.Gaps.map((n, i) => [n, iso(data.Series.Start + i * data.Series.Width).slice(0, 19)]).filter(g => g[0])`)
	if len(got) != 1 || got[0][0] != 50.0 || got[0][1] != after.Time[:19] {
		t.Errorf("the gaps are %v, want 50 at %s", got, after.Time)
	}
	var shown string
	b.evaluate(&shown, `document.getElementById('gaps').textContent`)
	if !strings.Contains(shown, "50 missing") || !strings.Contains(shown, after.Time[11:23]) {
		t.Errorf("the page says %q", shown)
	}
}

// A recording may lack most types of records. Its page opens without problems, and can be zoomed.
func TestReport_FewRecords(t *testing.T) {
	const head = `"time":"2026-11-22T12:00:00.000000000Z","seq":1,`
	for name, record := range map[string]string{
		"start":      `{"type":"start",` + head + `"version":"v1","kernel":"6.18","arch":"x86_64","boot_id":"a"}`,
		"transition": `{"type":"transition",` + head + `"conn":"1","netns":1,"old_state":"SYN_SENT","new_state":"ESTABLISHED","role":"client"}`,
		"connection": `{"type":"connection",` + head + `"conn":"1","netns":1,"role":"client","duration_ns":1,"final_state":"CLOSE","closed_by":"local"}`,
		"alert":      `{"type":"alert",` + head + `"alert":"a-1","phase":"open","kind":"time_wait_storm","severity":"critical"}`,
		"loss":       `{"type":"loss",` + head + `"lost":1,"cause":"ring_full","stage":"kernel"}`,
	} {
		t.Run(name, func(t *testing.T) {
			recording := filepath.Join(t.TempDir(), "few.ndjson")
			if err := os.WriteFile(recording, []byte(record+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			page := makePage(t, recording)
			b := newBrowser(t)
			b.open(page, "light", 900)
			for _, shown := range []string{`document.querySelector('.plot canvas')`, `document.querySelector('#list thead button')`} {
				if !b.is(shown) {
					t.Errorf("the page has no %s", shown)
				}
			}
			b.evaluate(new(int), `document.querySelector('[data-chart=rate]').focus(), 0`)
			b.press("Home", "+", "0")
		})
	}
}

// A recording of 100,000 connections makes a page whose size, and the work to show a part of it, depend on the bins of
// the time axis and not on the connections.
func TestReport_ManyConnections(t *testing.T) {
	var text bytes.Buffer
	begin := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for i := range 100_000 {
		opened := begin.Add(time.Duration(i) * 3 * time.Millisecond)
		const layout = "2006-01-02T15:04:05.000000000Z"
		fmt.Fprintf(&text, `{"type":"connection","time":"%s","seq":%d,"conn":"%x","netns":1,"local_addr":"10.0.0.1","local_port":%d,"peer_addr":"10.0.%d.%d","peer_port":443,"role":"client","pid":%d,"comm":"worker %d","opened":"%s","duration_ns":%d,"sent_bytes":%d,"received_bytes":7,"retransmits":%d,"final_state":"CLOSE","closed_by":"%s"}`+"\n",
			opened.Add(time.Second).Format(layout), i+1, i+1, 1024+i%60000, i%200, i/200%200, i%30000+1, i%500, opened.Format(layout), time.Second, i, i%7, []string{"local", "peer", "refused", "timeout"}[i%4])
	}
	recording := filepath.Join(t.TempDir(), "many.ndjson")
	if err := os.WriteFile(recording, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	page := makePage(t, recording)
	b := newBrowser(t)
	b.open(page, "light", 900)
	var left int
	b.evaluate(&left, `Number(document.getElementById('n-left').value)`)
	if left != 100_000-4*200 {
		t.Errorf("%d connections are left out", left)
	}
	var bins, plots int
	b.evaluate(&bins, `data.Series.Opened.length`)
	b.evaluate(&plots, `document.querySelectorAll('.plot').length`)
	b.evaluate(new(int), countDrawing)
	const zooms = 5
	for range zooms {
		b.evaluate(new(int), `(() => { const {min, max} = charts.shown(); charts.zoom(min + 1, max - 1); return 0; })()`)
	}
	b.await(fmt.Sprintf("drawn.charts >= %d", zooms*plots), "a zoom does not draw all charts") // uPlot draws after the script
	var drawn struct{ Charts, Points, Nodes int }
	b.evaluate(&drawn, `({Charts: drawn.charts, Points: drawn.points, Nodes: document.querySelectorAll('*').length})`)
	t.Logf("%d zooms: %+v of %d charts of %d bins", zooms, drawn, plots, bins)
	if bins > 1200 || drawn.Charts != zooms*plots || drawn.Points > drawn.Charts*bins*maxLines*2 || drawn.Nodes > 10_000 {
		t.Errorf("%d zooms of %d charts of %d bins: %+v", zooms, plots, bins, drawn)
	}
}

// maxLines bounds the lines and areas of a chart. Each has two points for a bin, because it is stepped.
const maxLines = 10

// countDrawing makes the page count what its charts draw from then on: a chart clears its canvas once, and calls lineTo for
// each point.
const countDrawing = `(() => {
	window.drawn = {charts: 0, points: 0};
	for (const [type, name, count] of [[CanvasRenderingContext2D, 'clearRect', 'charts'], [Path2D, 'lineTo', 'points'], [CanvasRenderingContext2D, 'lineTo', 'points']]) {
		const draw = type.prototype[name];
		type.prototype[name] = function(...args) { drawn[count]++; return draw.apply(this, args); };
	}
	return 0;
})()`

// With -pictures, the pictures of the docs are made.
func TestPictures(t *testing.T) {
	if *pictures == "" {
		t.Skip("make pictures makes them")
	}
	dir, err := filepath.Abs(*pictures)
	if err != nil {
		t.Fatal(err)
	}
	b := newBrowser(t)
	recording := *recorded
	if recording == "" {
		recording = filepath.Join(t.TempDir(), "storm.ndjson")
		recordStorm(t, 5, recording, livePicture(newBrowser(t), filepath.Join(dir, "live.png")), "--http-listen", freeAddress(t))
	}
	recording = withoutCgroups(t, recording)
	pictureTop(t, b, recording, filepath.Join(dir, "top.png"))
	page := makePage(t, recording)
	b.open(page, "light", 1860)
	b.do(step{Screenshot: filepath.Join(dir, "report-light.png")})
	b.open(page, "dark", 1100)
	b.do(step{Evaluate: `document.querySelector('#find-end').value = 'reset_received', document.querySelector('#find-end').onchange(), document.querySelector('#list tr.row').click(), document.getElementById('endpoints').scrollIntoView(), 0`})
	b.do(step{Screenshot: filepath.Join(dir, "report-dark.png")})
	for _, name := range []string{"report-light.png", "report-dark.png", "top.png", "live.png"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > 200<<10 {
			t.Errorf("%s has %d bytes", name, info.Size())
		}
	}
}

// withoutCgroups copies a recording without the cgroups, which name the machine that makes the pictures.
func withoutCgroups(t *testing.T, recording string) string {
	t.Helper()
	out, err := exec.Command("jq", "-c", "del(.cgroup)", recording).Output()
	if err != nil {
		t.Fatal("jq: ", err)
	}
	stripped := filepath.Join(t.TempDir(), "pictures.ndjson")
	if err := os.WriteFile(stripped, out, 0o600); err != nil {
		t.Fatal(err)
	}
	return stripped
}
