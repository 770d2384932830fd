package top

import (
	"slices"
	"strings"

	"github.com/tcpshift/tcpshift/internal/record"
)

// column is one column of a table.
type column[T any] struct {
	title string
	width int  // in cells; of the first column: the least, and it gets what the others leave
	left  bool // the text begins at the left
	keep  int  // where the screen is too narrow for all columns, those with the lowest go first
	text  func(r *T) string
	look  func(r *T) look   // nil: plain
	order func(a, b *T) int // what comes first by default
}

// table shows rows of one kind.
type table[T any] struct {
	columns []column[T]
	id      func(r *T) string // the row stays selected while it moves
	words   func(r *T) string // that a filter looks through
	sorted  int               // the column that it is sorted by at first
	none    string            // what an empty table says
}

// position is where the user is in a table.
type position struct {
	sorted  int
	reverse bool
	chosen  string // id of the selected row
	at      int    // its index
	first   int    // index of the first row on the screen
}

// rows returns the rows that pass a filter, in order.
func (t *table[T]) rows(all []T, p *position, filter string) []*T {
	filter = strings.ToLower(filter)
	var found []*T
	for i := range all {
		if filter == "" || strings.Contains(strings.ToLower(t.words(&all[i])), filter) {
			found = append(found, &all[i])
		}
	}
	order := t.columns[p.sorted].order
	slices.SortStableFunc(found, func(a, b *T) int {
		by := order(a, b)
		if p.reverse {
			by = -by
		}
		if by == 0 {
			by = strings.Compare(t.id(a), t.id(b))
		}
		return by
	})
	return found
}

// settle finds the selected row again, and scrolls so that it is on the screen.
func (t *table[T]) settle(rows []*T, p *position, height int) {
	if at := slices.IndexFunc(rows, func(r *T) bool { return t.id(r) == p.chosen }); at >= 0 && p.chosen != "" {
		p.at = at
	}
	p.clamp(len(rows), height)
}

// clamp keeps the position within a number of rows.
func (p *position) clamp(rows, height int) {
	p.at = max(0, min(p.at, rows-1))
	p.first = max(0, min(p.first, p.at, rows-height))
	p.first = max(p.first, p.at-height+1)
}

// shownColumns returns the indices of the columns for which a width has room, and the width of the first one.
func (t *table[T]) shownColumns(width int) (shown []int, first int) {
	used := 0
	for i := range t.columns {
		shown = append(shown, i)
		used += t.columns[i].width + 1
	}
	used--
	for used > width && len(shown) > 1 {
		least := 1
		for i := 2; i < len(shown); i++ {
			if t.columns[shown[i]].keep < t.columns[shown[least]].keep {
				least = i
			}
		}
		used -= t.columns[shown[least]].width + 1
		shown = slices.Delete(shown, least, least+1)
	}
	return shown, max(1, t.columns[0].width+width-used)
}

// draw returns the title and as many rows as height has room for.
func (t *table[T]) draw(all []T, p *position, filter string, width, height int, ascii bool) []line {
	rows := t.rows(all, p, filter)
	height = max(1, height-1)
	t.settle(rows, p, height)
	if len(rows) > 0 {
		p.chosen = t.id(rows[p.at])
	}
	shown, first := t.shownColumns(width)
	lines := []line{t.title(p, shown, first, width, ascii)}
	if len(rows) == 0 {
		none := t.none
		if filter != "" && len(all) > 0 {
			none = "nothing matches the filter"
		}
		return append(lines, line{{none, dim}})
	}
	for i, r := range rows[p.first:min(len(rows), p.first+height)] {
		lines = append(lines, t.row(r, shown, first, width, p.first+i == p.at))
	}
	return lines
}

func (t *table[T]) title(p *position, shown []int, first, width int, ascii bool) line {
	var b strings.Builder
	for n, i := range shown {
		c := &t.columns[i]
		title, cells := c.title, c.width
		if i == p.sorted {
			title = "▼" + title
			if p.reverse {
				title = "▲" + c.title
			}
			if ascii {
				title = "*" + c.title
			}
		}
		if n == 0 {
			cells = first
		} else {
			b.WriteByte(' ')
		}
		b.WriteString(cell(title, cells, c.left))
	}
	return line{{padRight(b.String(), width), heading}}
}

func (t *table[T]) row(r *T, shown []int, first, width int, isSelected bool) line {
	var l line
	for n, i := range shown {
		c := &t.columns[i]
		cells, how := c.width, plain
		if c.look != nil {
			how = c.look(r)
		}
		if n == 0 {
			cells = first
		} else {
			l = append(l, span{" ", plain})
		}
		l = append(l, span{cell(c.text(r), cells, c.left), how})
	}
	if isSelected {
		return line{{padRight(l.String(), width), selected}}
	}
	return l
}

// text makes a name printable. Names are those of others.
func text(s string) string { return record.Printable(s) }
