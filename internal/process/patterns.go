package process

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"sort"
	"strings"
	"unicode/utf8"
)

const (
	// MaxPatterns bounds the patterns of an operator.
	MaxPatterns = 16
	maxPattern  = 256 // bytes of one
	// maxInstructions bounds what a pattern costs for each byte: x{1000} is short.
	maxInstructions = 500
	// maxMatched is how many bytes of cmdline are read if there are patterns: each of them may look at each byte once
	// for each of its instructions.
	maxMatched = 4 << 10
)

// ParsePattern parses a regular expression in the syntax of RE2 that matches secrets in arguments.
func ParsePattern(text string) (*regexp.Regexp, error) {
	switch {
	case text == "":
		return nil, errors.New("it is empty: write a regular expression")
	case len(text) > maxPattern:
		return nil, fmt.Errorf("it has %d bytes, at most %d are permitted: write several patterns", len(text), maxPattern)
	}
	parsed, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return nil, patternError(text, err)
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, err
	}
	if n := len(program.Inst); n > maxInstructions {
		return nil, fmt.Errorf("it takes %d instructions, at most %d are permitted: repeat less in it", n, maxInstructions)
	}
	return regexp.Compile(text)
}

// patternError says where a pattern is wrong.
func patternError(text string, err error) error {
	var wrong *syntax.Error
	if !errors.As(err, &wrong) {
		return err
	}
	at := max(0, strings.Index(text, wrong.Expr))
	return fmt.Errorf("character %d: %s: %q", 1+utf8.RuneCountInString(text[:at]), wrong.Code, wrong.Expr)
}

// span is a part of an argument.
type span struct{ begin, end int }

// replace replaces the parts of an argument by one mark for each, and by one for those that overlap or adjoin.
func replace(arg string, parts []span) string {
	slices.SortFunc(parts, func(a, b span) int { return cmp.Or(a.begin-b.begin, a.end-b.end) })
	var b strings.Builder
	shown, hidden := 0, -1 // what is shown and hidden of the argument
	for _, s := range parts {
		if s.begin >= s.end {
			continue
		}
		if s.begin > hidden {
			b.WriteString(arg[shown:s.begin])
			b.WriteString(redacted)
		}
		hidden = max(hidden, s.end)
		shown = hidden
	}
	b.WriteString(arg[shown:])
	return b.String()
}

// addMatches adds the parts of each argument that patterns match in all of them, joined by spaces. That is the text of
// a record, so a pattern may match an option together with the argument behind it.
func addMatches(parts [][]span, args []string, patterns []*regexp.Regexp) {
	if len(patterns) == 0 {
		return
	}
	text := strings.Join(args, " ")
	ends := make([]int, len(args)) // of the arguments in text
	for i, end := 0, -1; i < len(args); i++ {
		end += 1 + len(args[i])
		ends[i] = end
	}
	for _, pattern := range patterns {
		for _, match := range pattern.FindAllStringIndex(text, -1) {
			for i := sort.SearchInts(ends, match[0]); i < len(args); i++ {
				begin := ends[i] - len(args[i])
				if begin >= match[1] {
					break
				}
				parts[i] = append(parts[i], span{max(match[0]-begin, 0), min(match[1]-begin, len(args[i]))})
			}
		}
	}
}
