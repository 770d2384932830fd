package report

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/net/html"
)

func pageOf(t *testing.T, recordings ...string) string {
	t.Helper()
	var b bytes.Buffer
	if err := read(t, recordings...).WritePage(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// elements returns the elements of a page by name, in the order in which they come.
func elements(t *testing.T, page string) map[string][]*html.Node {
	t.Helper()
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string][]*html.Node)
	for n := range root.Descendants() {
		if n.Type == html.ElementNode {
			found[n.Data] = append(found[n.Data], n)
		}
	}
	return found
}

func textOf(n *html.Node) string {
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			b.WriteString(d.Data)
		}
	}
	return b.String()
}

func attribute(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

func dataOf(t *testing.T, page string) string {
	t.Helper()
	for _, s := range elements(t, page)["script"] {
		if attribute(s, "id") == "data" {
			return textOf(s)
		}
	}
	t.Fatal("the page has no data")
	return ""
}

// The page permits its own scripts and styles by their hashes, and nothing else: no element of it can load anything.
func TestPage_Policy(t *testing.T) {
	found := elements(t, pageOf(t, whole))
	policy := attribute(found["meta"][1], "content")
	var want []string
	for _, name := range []string{"style", "script"} {
		for _, n := range found[name] {
			if kind := attribute(n, "type"); kind == "" {
				want = append(want, hashOf(textOf(n)))
			}
		}
	}
	if len(want) != 6 {
		t.Errorf("%d styles and scripts", len(want))
	}
	got := regexp.MustCompile(`'sha256-[^']+'`).FindAllString(policy, -1)
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("the policy is %s, the hashes %v", policy, want)
	}
	for _, directive := range []string{"default-src 'none'", "base-uri 'none'", "form-action 'none'", "trusted-types 'none'"} {
		if !strings.Contains(policy, directive) {
			t.Errorf("the policy has no %s: %s", directive, policy)
		}
	}
	if strings.Contains(policy, "unsafe") || strings.Contains(policy, "http") {
		t.Errorf("the policy permits too much: %s", policy)
	}
	for name, nodes := range found {
		for _, n := range nodes {
			for _, a := range n.Attr {
				if a.Key == "src" || a.Key == "style" || a.Key == "srcset" || strings.HasPrefix(a.Key, "on") || a.Key == "href" && !strings.HasPrefix(a.Val, "#") {
					t.Errorf("<%s> has %s=%q", name, a.Key, a.Val)
				}
			}
		}
	}
}

// hostile are names that a process may give itself, or that may stand in a recording that somebody has made.
var hostile = []string{
	`</script><script>alert(1)</script>`, `<img src=x onerror=alert(1)>`, `"><svg/onload=alert(1)>`, `<!--<script>`, `]]>`,
	`{{.Policy}}`, `';alert(1)//`, "javascript:alert(1)", "\u202eevil", "\x1b]0;owned\a", "a\u2028b", `\u003cb\u003e`, `<b>bold</b>`,
}

// No name of a recording becomes markup or script, wherever it stands.
func TestPage_HostileNames(t *testing.T) {
	plain := elements(t, pageOf(t, whole))
	quoted := regexp.MustCompile(`"(vm|curl|httpd|devel|6\.18|not permitted|a-1|time_wait_storm|ring_full|kernel|ports run out|reuse connections|client|server|127\.0\.0\.1|10\.9\.0\.2|refused|CLOSE_WAIT|SYN_SENT|ESTABLISHED|ECONNREFUSED|ephemeral_ports|full|critical|signal|2e8ec3c7)"`)
	for _, name := range hostile {
		encoded, err := json.Marshal(name)
		if err != nil {
			t.Fatal(err)
		}
		page := pageOf(t, quoted.ReplaceAllLiteralString(whole, string(encoded)))
		found := elements(t, page)
		for _, element := range []string{"script", "style", "meta", "img", "svg", "b", "iframe", "link", "base"} {
			if element == "b" { // alerts and their words
				if n := len(found["b"]); n > len(plain["b"]) {
					t.Errorf("%q: %d <b>", name, n)
				}
				continue
			}
			if len(found[element]) != len(plain[element]) {
				t.Errorf("%q: %d <%s>, want %d", name, len(found[element]), element, len(plain[element]))
			}
		}
		if !json.Valid([]byte(dataOf(t, page))) {
			t.Errorf("%q: the data is not JSON", name)
		}
		if !strings.Contains(textOf(found["h1"][0]), text(name)) {
			t.Errorf("%q: the title is %q", name, textOf(found["h1"][0]))
		}
		for _, c := range "\u202e\x1b\a\u2028" {
			if strings.ContainsRune(page, c) {
				t.Errorf("%q: the page has %U", name, c)
			}
		}
	}
}

// Each control that a script adds a meaning to has a name, and each table titles for its columns.
func TestPage_Accessible(t *testing.T) {
	found := elements(t, pageOf(t, whole))
	if attribute(found["html"][0], "lang") != "en" || len(found["h1"]) != 1 || len(found["main"]) != 1 {
		t.Error("the page lacks its language, title or main part")
	}
	ids := make(map[string]bool)
	for _, nodes := range found {
		for _, n := range nodes {
			if id := attribute(n, "id"); id != "" {
				if ids[id] {
					t.Errorf("two elements have the id %s", id)
				}
				ids[id] = true
			}
		}
	}
	for name, nodes := range found {
		for _, n := range nodes {
			if by := attribute(n, "aria-labelledby"); by != "" && !ids[by] {
				t.Errorf("<%s> is labelled by %s, which does not exist", name, by)
			}
			if name == "th" && attribute(n, "scope") == "" {
				t.Errorf("the title %q has no scope", textOf(n))
			}
		}
	}
}

// To the scripts of the page a list is a list, also if it is empty.
func TestPage_EmptyLists(t *testing.T) {
	data := dataOf(t, pageOf(t, `{"type":"start","time":"2026-11-22T12:00:00.000000000Z","seq":1}`+"\n"))
	if strings.Contains(data, "null") || !strings.Contains(data, `"Alerts":[],`) || !strings.Contains(data, `"Connections":[]`) {
		t.Errorf("the data is %s", data)
	}
}
