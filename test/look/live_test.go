package look_test

import (
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The live page of a real storm, in a real browser and from a tracer in its sandbox: it follows the storm, what the user has
// chosen stays, its numbers at the end are those of jq in the tracer's own output, and it shows the token to nobody.
func TestLive_Storm(t *testing.T) {
	recording := filepath.Join(directory, "live.ndjson")
	b := newBrowser(t)
	w := liveWatch{browser: b, recording: recording}
	recordStorm(t, 1, recording, w.begin, "--http-listen", freeAddress(t), "--sandbox")
	b.compareNumbers(recording, recordsByType) // stop comes after the last look
	b.compareSeries(recording)
	b.await(`document.getElementById('state').textContent.includes('does not answer')`, "the page does not say that the tracer has ended")
	b.is("0")
	for _, problem := range b.last.Problems {
		if !strings.Contains(problem, "ERR_CONNECTION_REFUSED") {
			t.Errorf("the page has a problem: %s", problem)
		}
	}
	b.checkNames()
	shared = recording
}

// freeAddress returns an address of this host on which nobody listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

type liveWatch struct {
	*browser
	recording string
}

var pageAddress = regexp.MustCompile(`the page is at (http://[0-9.:]+)/#token=([\w-]+)`)

func (w *liveWatch) begin(said string) (over func()) {
	w.t.Helper()
	origin, token := w.find(said)
	if strings.Count(said, token) != 1 {
		w.t.Errorf("the token is more than once in %q", said)
	}
	for _, answer := range []struct {
		path, token string
		want        int
	}{{"/", "", 200}, {"/content", "", 401}, {"/content", token[1:], 401}, {"/content", token, 200}, {"/content?token=" + token, "", 401}} {
		request, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, origin+answer.path, nil)
		if err != nil {
			w.t.Fatal(err)
		}
		request.Header.Set("Tcpshift-Token", answer.token)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			w.t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != answer.want {
			w.t.Errorf("%s with the token %q answers %s, want %d", answer.path, answer.token, response.Status, answer.want)
		}
	}
	w.openLive(origin, token, 900)
	if w.is(`location.href.includes('token') || document.cookie`) {
		w.t.Error("the token is in the address, or a cookie")
	}
	w.do(step{Evaluate: `document.querySelector('[data-way], #services th button.sort') && document.querySelector('#services th:nth-child(3) button.sort').click(), 0`})
	return w.over
}

// find returns the address and the token of the live page in what the tracer says.
func (b *browser) find(said string) (origin, token string) {
	b.t.Helper()
	found := pageAddress.FindStringSubmatch(said)
	if found == nil {
		b.t.Fatalf("the tracer says %q", said)
	}
	return found[1], found[2]
}

// openLive opens the live page in light colors, and waits until it has charts.
func (b *browser) openLive(origin, token string, height int) {
	b.t.Helper()
	b.origin = origin
	b.do(step{Open: origin + "/#token=" + token, Width: 1200, Height: height, Scheme: "light"})
	b.await(`document.querySelector('.plot canvas')`, "the page does not show charts")
}

// livePicture returns a function for recordStorm that makes a picture of the live page.
func livePicture(b *browser, path string) func(said string) (over func()) {
	return func(said string) (over func()) {
		origin, token := b.find(said)
		b.openLive(origin, token, 1000)
		return func() {
			b.await(`document.querySelector('#alerts details.alert')`, "no alert appears")
			b.do(step{Screenshot: path})
		}
	}
}

// over is called while the tracer still runs.
func (w *liveWatch) over() {
	w.t.Helper()
	w.await(`document.querySelector('#alerts details.alert')`, "no alert appears")
	// What the user does stays.
	w.do(step{Evaluate: `document.getElementById('alert-0').open = true, document.querySelector('#services th:nth-child(3) button.sort').click(), document.querySelector('#services button[data-find]').focus(), window.focused = document.activeElement, 0`})
	for range 2 {
		w.awaitNew()
	}
	for what, expression := range map[string]string{
		"an alert that was opened":  `document.getElementById('alert-0').open`,
		"the order of a table":      `document.querySelector('#services th:nth-child(3)').getAttribute('aria-sort') === 'descending' && [...document.querySelectorAll('#services tbody tr:not(.other)')].every((r, i, all) => !i || Number(r.cells[2].dataset.v) <= Number(all[i - 1].cells[2].dataset.v))`,
		"the element in focus":      `document.activeElement === window.focused && window.focused.isConnected`,
		"the state":                 `document.getElementById('state').textContent.startsWith('Live')`,
		"the number of connections": `Number(document.getElementById('n-connections').value) > 0`,
	} {
		if !w.is(expression) {
			w.t.Errorf("%s does not stay", what)
		}
	}
	w.do(step{Evaluate: `document.getElementById('pause').click(), 0`})
	w.await(`document.getElementById('state').textContent === 'Paused.'`, "Pause has no effect")
	w.do(step{Evaluate: `document.getElementById('pause').click(), 0`})
	w.awaitEqual()
}

// awaitNew waits until the page has new content.
func (w *liveWatch) awaitNew() {
	w.t.Helper()
	w.do(step{Evaluate: `window.seen = data, 0`})
	w.await(`data !== window.seen`, "the page does not go on")
}

// awaitEqual waits until the page has as many connections as jq finds in the tracer's output, which may still grow.
func (w *liveWatch) awaitEqual() {
	w.t.Helper()
	for range 60 {
		var shown, written int
		jq(w.t, &written, w.recording, connections+` | length`)
		w.awaitNew()
		w.evaluate(&shown, `Number(document.getElementById('n-connections').value)`)
		if shown == written {
			return
		}
	}
	w.t.Error("the page does not get the connections that the tracer writes")
}
