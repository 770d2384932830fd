package explain

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

// No line is wider than asked for, at any width.
func TestText_Width(t *testing.T) {
	topics := append(States(), Topic{
		Name:    strings.Repeat("N", 90),
		Summary: "Unbroken " + strings.Repeat("ä", 70) + " and an open `backquote that is never closed.",
	})
	for _, topic := range topics {
		for width := 1; width <= 200; width++ {
			for line := range strings.Lines(Text(topic, width)) {
				if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > width {
					t.Fatalf("%.20s at width %d: %d characters: %q", topic.Name, width, n, line)
				}
			}
		}
	}
}

// Text contains every part of a topic, at any width.
func TestText_Complete(t *testing.T) {
	for _, topic := range States() {
		for _, width := range []int{0, 1, 7, 40, 80, 500} {
			t.Run(fmt.Sprintf("%s at width %d", topic.Name, width), func(t *testing.T) {
				got := squeeze(Text(topic, width))
				for _, text := range allTexts(topic) {
					if !strings.Contains(got, squeeze(text)) {
						t.Errorf("missing: %q", text)
					}
				}
			})
		}
	}
}

func TestText_Layout(t *testing.T) {
	topic := Topic{
		Name:        "NAME",
		Aliases:     []string{"OTHER"},
		Summary:     "One line.",
		Meaning:     "A paragraph that is wrapped.",
		Normal:      "Ask `ss -tan` for it.",
		Transitions: []string{"A -> B: because of it", "B -> C: so"},
	}
	tests := []struct {
		name  string
		width int
		want  string
	}{
		{"paragraphs are wrapped, lists hang, empty sections are left out", 23, `NAME (also OTHER)
One line.

WHAT IT IS
  A paragraph that is
  wrapped.

WHEN IT IS NORMAL
  Ask ` + "`ss -tan`" + ` for it.

IN THE STREAM
  A -> B: because of
    it
  B -> C: so
`},
		{"a command is not broken where it fits a line", 14, `NAME (also
OTHER)
One line.

WHAT IT IS
  A paragraph
  that is
  wrapped.

WHEN IT IS
NORMAL
  Ask
  ` + "`ss -tan`" + `
  for it.

IN THE STREAM
  A -> B:
    because of
    it
  B -> C: so
`},
		{"width zero wraps nothing", 0, `NAME (also OTHER)
One line.

WHAT IT IS
  A paragraph that is wrapped.

WHEN IT IS NORMAL
  Ask ` + "`ss -tan`" + ` for it.

IN THE STREAM
  A -> B: because of it
  B -> C: so
`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Text(topic, tt.width); got != tt.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, tt.want)
			}
		})
	}
}

// Commands fit one line of an 80-column terminal, so that they can be copied.
func TestText_CommandsUnbroken(t *testing.T) {
	for _, topic := range States() {
		lines := strings.Split(Text(topic, 80), "\n")
		for _, line := range lines {
			if strings.Count(line, "`")%2 != 0 {
				t.Errorf("%s: a command is broken: %q", topic.Name, line)
			}
		}
	}
}

func squeeze(s string) string { return strings.Join(strings.Fields(s), "") }
