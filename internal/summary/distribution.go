package summary

import (
	"math"
	"time"

	"github.com/DataDog/sketches-go/ddsketch"
	"github.com/DataDog/sketches-go/ddsketch/mapping"
	"github.com/DataDog/sketches-go/ddsketch/store"
)

const (
	// accuracy is the relative error of a quantile. A sketch takes at most 18 KiB then: 2,219 counters
	// for all durations that there are.
	accuracy = 0.01
	// maxExact values are kept as they are: most rows have few connections.
	maxExact = 8
)

// distribution has the values that make a [Quantiles].
type distribution struct {
	values []time.Duration    // until there are more than maxExact
	sketch *ddsketch.DDSketch // nil: values has all
}

func (d *distribution) add(v time.Duration) {
	if d.sketch == nil {
		if len(d.values) < maxExact {
			d.values = append(d.values, v)
			return
		}
		d.sketch = d.toSketch()
		d.values = nil
	}
	addTo(d.sketch, v)
}

func (d *distribution) merge(o *distribution) {
	for _, v := range o.values {
		d.add(v)
	}
	if o.sketch == nil {
		return
	}
	if d.sketch == nil {
		d.sketch = d.toSketch()
		d.values = nil
	}
	_ = d.sketch.MergeWith(o.sketch) // fails for another accuracy only
}

// counters finds the counter of a value. It interpolates between powers of two: a logarithm for each value takes
// three times as long, and saves one counter of a hundred.
var counters, _ = mapping.NewCubicallyInterpolatedMapping(accuracy) // fails for an accuracy outside 0 to 1 only

func (d *distribution) toSketch() *ddsketch.DDSketch {
	s := ddsketch.NewDDSketch(counters, store.NewDenseStore(), store.NewDenseStore())
	for _, v := range d.values {
		addTo(s, v)
	}
	return s
}

// addTo counts a negative duration, which a clock may give, as 0.
func addTo(s *ddsketch.DDSketch, v time.Duration) { _ = s.Add(float64(max(0, v))) }

func (d *distribution) quantiles() Quantiles {
	s := d.sketch
	if s == nil {
		if len(d.values) == 0 {
			return Quantiles{}
		}
		s = d.toSketch()
	}
	p, err := s.GetValuesAtQuantiles([]float64{0.5, 0.99})
	if err != nil { // no value
		return Quantiles{}
	}
	return Quantiles{true, time.Duration(math.Round(p[0])), time.Duration(math.Round(p[1]))}
}
