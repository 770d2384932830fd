package pattern

import "testing"

func TestPattern(t *testing.T) {
	t.Run("a", func(*testing.T) {})
	t.Run("a (b), c", func(t *testing.T) {
		t.Run("d", func(*testing.T) {})
	})
}

func TestPatternOther(*testing.T) {}
