package explain

import (
	"strings"
	"unicode/utf8"
)

// Text formats a topic for a terminal: paragraphs with headings, no line longer than width
// characters. If width is zero or less, it wraps no line. A command in backquotes stays on
// one line if it fits, so that it can be copied.
func Text(t Topic, width int) string {
	p := page{width: width}
	p.write(title(t), "", "")
	p.write(t.Summary, "", "")
	p.section("WHAT IT IS", t.Meaning)
	p.section("WHEN IT IS NORMAL", t.Normal)
	p.section("WHEN IT PILES UP", t.Remedy)
	p.section("IN THE STREAM", t.Transitions...)
	p.section("SOURCES", t.Sources...)
	return p.out.String()
}

func title(t Topic) string {
	if len(t.Aliases) == 0 {
		return t.Name
	}
	return t.Name + " (also " + strings.Join(t.Aliases, ", ") + ")"
}

type page struct {
	out   strings.Builder
	width int
}

// section writes a heading and its items, or nothing if the items are empty.
func (p *page) section(heading string, items ...string) {
	const indent, hanging = "  ", "    "
	if strings.TrimSpace(strings.Join(items, "")) == "" {
		return
	}
	p.out.WriteByte('\n')
	p.write(heading, "", "")
	for _, item := range items {
		if len(items) == 1 {
			p.write(item, indent, indent)
		} else {
			p.write(item, indent, hanging)
		}
	}
}

// write wraps text. Its first line begins with the prefix first, and the others with rest.
func (p *page) write(text, first, rest string) {
	room := p.width - len(rest)
	if p.width > 0 && room < p.width/2 {
		first, rest, room = "", "", p.width // too narrow for an indent
	}
	prefix := first
	for _, line := range wrap(text, room) {
		p.out.WriteString(prefix + line + "\n")
		prefix = rest
	}
}

func wrap(text string, width int) []string {
	if width <= 0 {
		return []string{strings.Join(strings.Fields(text), " ")}
	}
	var lines []string
	line := ""
	for _, piece := range pieces(text, width) {
		switch {
		case line == "":
			line = piece
		case length(line)+1+length(piece) <= width:
			line += " " + piece
		default:
			lines = append(lines, line)
			line = piece
		}
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}

// pieces splits text into commands and words that fit a line, and splits those that do not.
func pieces(text string, width int) []string {
	var out []string
	for _, unit := range units(text) {
		if length(unit) <= width {
			out = append(out, unit)
			continue
		}
		for _, word := range strings.Fields(unit) {
			out = append(out, chop(word, width)...)
		}
	}
	return out
}

// units splits at spaces, except inside backquotes.
func units(text string) []string {
	var out []string
	quoted := false
	for _, word := range strings.Fields(text) {
		if quoted {
			out[len(out)-1] += " " + word
		} else {
			out = append(out, word)
		}
		if strings.Count(word, "`")%2 == 1 {
			quoted = !quoted
		}
	}
	return out
}

// chop splits a word that is longer than a line.
func chop(word string, width int) []string {
	var out []string
	runes := []rune(word)
	for len(runes) > width {
		out = append(out, string(runes[:width]))
		runes = runes[width:]
	}
	return append(out, string(runes))
}

func length(s string) int { return utf8.RuneCountInString(s) }
