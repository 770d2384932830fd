package report

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the parts of the page
	"encoding/base64"
	"encoding/json"
	"html/template"
	"io"
	"strings"
)

// The parts of the page. Those of uPlot come from its npm package, by make generate-look.
var (
	//go:embed page/page.html.tmpl
	pageTemplate string
	//go:embed page/page.css
	pageStyle string
	//go:embed page/charts.js
	chartsScript string
	//go:embed page/page.js
	pageScript string
	//go:embed page/once.js
	onceScript string
	//go:embed page/live.js
	liveScript string
	//go:embed page/live.html.tmpl
	liveTemplate string
	//go:embed page/uplot/uPlot.min.css
	uplotStyle string
	//go:embed page/uplot/uPlot.iife.min.js
	uplotScript string
	//go:embed page/uplot/LICENSE
	uplotLicence string
)

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"count": count, "size": size, "nanoseconds": nanoseconds, "percent": percent,
}).Parse(pageTemplate))

var livePage = template.Must(template.New("live").Parse(liveTemplate))

// parts are what the page runs and looks like. Their hashes are the only ones that its policy permits. A part of a page has
// none of its own.
type parts struct {
	Policy  string
	Styles  []template.CSS
	Scripts []template.JS
	Licence template.JS
}

// newParts returns the parts of a page that ends with a script of its own.
func newParts(last string) parts {
	p := parts{
		Styles:  []template.CSS{template.CSS(uplotStyle), template.CSS(pageStyle)},
		Scripts: []template.JS{template.JS(uplotScript), template.JS(chartsScript), template.JS(pageScript), template.JS(last)},
		Licence: template.JS("\n" + uplotLicence),
	}
	var styles, scripts []string
	for _, s := range p.Styles {
		styles = append(styles, hashOf(string(s)))
	}
	for _, s := range p.Scripts {
		scripts = append(scripts, hashOf(string(s)))
	}
	p.Policy = "default-src 'none'; style-src " + strings.Join(styles, " ") + "; script-src " + strings.Join(scripts, " ") +
		"; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
	return p
}

func hashOf(s string) string {
	sum := sha256.Sum256([]byte(s))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// WritePage writes the report as HTML. The page loads nothing, and runs only the scripts of this package.
func (r *Report) WritePage(w io.Writer) error { return r.view().write(w, newParts(onceScript)) }

func (v *view) write(w io.Writer, p parts) error {
	data, err := json.Marshal(v.data) // escapes <, > and &
	if err != nil {
		return err
	}
	var out bytes.Buffer // html/template writes in small pieces
	err = page.Execute(&out, struct {
		parts
		*view
		Data template.JS
	}{p, v, template.JS(data)})
	if err != nil {
		return err
	}
	_, err = w.Write(out.Bytes())
	return err
}
