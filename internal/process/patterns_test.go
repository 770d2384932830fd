package process

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func patterns(t testing.TB, texts ...string) (all []*regexp.Regexp) {
	t.Helper()
	for _, text := range texts {
		p, err := ParsePattern(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

// A wrong pattern is refused, with the place where it is wrong.
func TestPattern_Parsed(t *testing.T) {
	for text, want := range map[string]string{
		`\bkey-[0-9a-f]{32}\b`: "", `(?i)x`: "", strings.Repeat("x", maxPattern): "", `\p{Greek}`: "",
		"":                                "it is empty",
		"ab[":                             "character 3: missing closing ]",
		"é*é**":                           "character 4: invalid nested repetition operator",
		`a\y`:                             "character 2: invalid escape sequence",
		`(?<=a)b`:                         "character 1: invalid",
		"a\xff":                           "character 2: invalid UTF-8",
		strings.Repeat("x", 1+maxPattern): "it has 257 bytes",
		"(abcd){200}":                     "instructions, at most 500",
	} {
		_, err := ParsePattern(text)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// What a pattern matches is replaced, in one argument and over several. It hides nothing from the built-in rules, nor they
// from it.
func TestRedact_Patterns(t *testing.T) {
	for _, tt := range []struct{ args, patterns, want string }{ // separated by |
		{"app|id=12345|id=6", `\d+`, "app|id=[redacted]|id=[redacted]"},
		{"app|--license|ABC-1|x", `--license \S+`, "app|[redacted]|[redacted]|x"},
		{"app|--license|ABC-1|x", `license ABC`, "app|--[redacted]|[redacted]-1|x"},
		{"app|a|b|c", `a.*c`, "[redacted]|[redacted]|[redacted]|[redacted]"},
		{"app|abcdef", `bcd|cde|ef`, "app|a[redacted]"},
		{"app|abcdef", `bcd|xyz||cde`, "app|a[redacted]f"},
		{"app|abcdef", `abcd|bcde`, "app|[redacted]ef"},
		{"app||x", `^app `, "[redacted]||x"},
		{"app||x", ` x$`, "app||[redacted]"},
		{"app|password=x", `password`, "app|[redacted]=[redacted]"},
		{"app|password=x", `word=x`, "app|pass[redacted]"},
		{"app|https://me:x@h/y", `//me:\w@h/(\w)`, "app|https:[redacted]"},
		{"app|x", `y|x*`, "app|[redacted]"},
		{"app|é\xff\x00z", `é.`, "app|[redacted]\x00z"},
	} {
		split := strings.Split(tt.patterns, "||")
		if len(split) == 1 {
			split = []string{tt.patterns}
		}
		if got := redact(strings.Split(tt.args, "|"), patterns(t, split...)); !slices.Equal(got, strings.Split(tt.want, "|")) {
			t.Errorf("%q with %q: got %q, want %q", tt.args, split, got, tt.want)
		}
	}
}

// The costliest patterns and the longest arguments take a bounded time.
func TestRedact_Bounded(t *testing.T) {
	all := make([]string, MaxPatterns)
	for i := range all {
		all[i] = strings.Repeat("(x|xx)*", 25) + strings.Repeat("x?", 20) + "y"
	}
	costly := patterns(t, all...)
	cmdline := []byte(strings.Repeat(strings.Repeat("x", 99)+"\x00", maxMatched/100) + strings.Repeat("x", 100))[:maxMatched]
	began := time.Now()
	args, cut := arguments(cmdline, maxMatched, costly)
	if took := time.Since(began); took > 10*time.Second || len(strings.Join(args, " ")) > maxText || !cut {
		t.Errorf("%d patterns took %v; %q, cut %v", len(costly), took, args, cut)
	} else {
		t.Logf("%d patterns took %v", len(costly), took)
	}
}

// Whatever the arguments and the pattern are, nothing that it matches is left, and nothing else is lost but secrets.
func FuzzPatterns(f *testing.F) {
	f.Add("a\x00bc\x00\x00d", "b|d")
	f.Add("\xff\x00\x80é", `\W+`)
	f.Add("x x\x00x", `x x`)
	f.Fuzz(func(t *testing.T, text, pattern string) {
		p, err := ParsePattern(pattern)
		if err != nil || len(text) > maxMatched {
			return
		}
		args := strings.Split(text, "\x00")
		parts := make([][]span, len(args))
		addMatches(parts, args, []*regexp.Regexp{p})
		covered := 0
		for i, arg := range args {
			for _, s := range parts[i] {
				if s.begin < 0 || s.end > len(arg) || s.begin > s.end {
					t.Fatalf("%q in %q: %+v", pattern, arg, s)
				}
				covered += s.end - s.begin
			}
			if got := replace(arg, slices.Clone(parts[i])); len(parts[i]) == 0 && got != arg {
				t.Errorf("%q becomes %q", arg, got)
			}
		}
		want := 0
		joined := strings.Join(args, " ")
		separators := make(map[int]bool)
		for at, i := -1, 0; i < len(args); i++ {
			at += 1 + len(args[i])
			separators[at] = true
		}
		for _, m := range p.FindAllStringIndex(joined, -1) {
			for at := m[0]; at < m[1]; at++ {
				if !separators[at] {
					want++
				}
			}
		}
		if covered != want {
			t.Errorf("%q in %q: %d bytes are replaced, want %d", pattern, args, covered, want)
		}
	})
}
