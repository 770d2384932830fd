// Package spelling finds the name that was meant by a misspelt one. It must not know what the names stand for.
package spelling

import "strings"

// Nearest returns the name that is most like a misspelt one, or "" if none is like it: at most a third of
// its letters may differ, and at least two may. Case, and _ instead of -, make no difference.
func Nearest(misspelt string, names []string) (nearest string) {
	plain := normal(misspelt)
	least := max(2, len(plain)/3) + 1
	for _, name := range names {
		if d := Distance(plain, normal(name)); d < least && d < len(name) {
			nearest, least = name, d
		}
	}
	return nearest
}

func normal(name string) string { return strings.ToLower(strings.ReplaceAll(name, "_", "-")) }

// Distance is the number of bytes to insert, remove or replace to make b of a (Levenshtein).
func Distance(a, b string) int {
	row := make([]int, len(b)+1) // of the matrix, for a[:i]
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
