package look_test

import (
	"fmt"
	"html"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// ansiColors are those of a dark terminal: what SGR 30 to 37 look like.
var ansiColors = [...]string{"#45475a", "#f38ba8", "#a6e3a1", "#f9e2af", "#89b4fa", "#f5c2e7", "#94e2d5", "#cdd6f4"}

// ansiStyle is how text looks (ECMA-48, Select Graphic Rendition).
type ansiStyle struct {
	bold, dim, underline, reverse bool
	color                         int // of ansiColors; -1: the default
}

func (s *ansiStyle) apply(parameters string) {
	for _, each := range strings.Split(parameters, ";") {
		n, _ := strconv.Atoi(each) // none is 0
		switch {
		case n == 0:
			*s = ansiStyle{color: -1}
		case n == 1:
			s.bold = true
		case n == 2:
			s.dim = true
		case n == 4:
			s.underline = true
		case n == 7:
			s.reverse = true
		case n >= 30 && n < 38:
			s.color = n - 30
		case n == 39:
			s.color = -1
		}
	}
}

func (s *ansiStyle) css() string {
	foreground, background := "#cdd6f4", "transparent"
	if s.color >= 0 {
		foreground = ansiColors[s.color]
	}
	if s.dim {
		foreground = "#7f849c"
	}
	if s.reverse {
		foreground, background = "#11111b", "#cdd6f4"
	}
	css := "color:" + foreground + ";background:" + background
	if s.bold {
		css += ";font-weight:bold"
	}
	if s.underline {
		css += ";text-decoration:underline"
	}
	return css
}

// ansiPage writes what a terminal shows, with its escape sequences, as a page of HTML into a file, and returns the
// path. It knows the sequences that `tmux capture-pane -e` writes.
func ansiPage(t *testing.T, screen string) string {
	t.Helper()
	var b strings.Builder
	b.WriteString(`<!DOCTYPE html><meta charset="utf-8"><style>body{margin:0;background:#11111b}pre{margin:12px 16px;font:15px/1.25 "DejaVu Sans Mono";color:#cdd6f4}</style><pre>`)
	style := ansiStyle{color: -1}
	for screen != "" {
		text, rest, found := strings.Cut(screen, "\x1b[")
		fmt.Fprintf(&b, `<span style="%s">%s</span>`, style.css(), html.EscapeString(text))
		if !found {
			break
		}
		parameters, after, found := strings.Cut(rest, "m")
		if !found || strings.Trim(parameters, "0123456789;") != "" {
			t.Fatalf("the terminal has another escape sequence: %q", rest[:min(len(rest), 20)])
		}
		style.apply(parameters)
		screen = after
	}
	b.WriteString("</pre>")
	path := filepath.Join(t.TempDir(), "terminal.html")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
