package metrics

import (
	"cmp"
	"errors"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// samples are the values of one scrape, by the index of their family. The registry of client_golang would check and
// sort them anew at each scrape, which took as long as all else together; here both follow from how they are made,
// and the tests check it.
type samples struct {
	lists [][]*dto.Metric // by Family.index; it may be shorter
}

// maxLabels is how many labels a family has at most.
const maxLabels = 3

// labelled is a sample with all that it points to, in one piece of memory.
type labelled struct {
	metric dto.Metric
	value  float64
	pairs  [maxLabels]dto.LabelPair
	list   [maxLabels]*dto.LabelPair
	values [maxLabels]string
}

type gaugeSample struct {
	labelled
	gauge dto.Gauge
}

type counterSample struct {
	labelled
	counter dto.Counter
}

// add adds a sample. There must be no other with these labels, which are in the order of Family.Labels.
func (s *samples) add(f *Family, v float64, labels ...string) {
	if f.Type == "counter" {
		c := new(counterSample)
		c.counter.Value = &c.value
		c.metric.Counter = &c.counter
		s.append(f, c.fill(f, v, labels))
		return
	}
	g := new(gaugeSample)
	g.gauge.Value = &g.value
	g.metric.Gauge = &g.gauge
	s.append(f, g.fill(f, v, labels))
}

func (l *labelled) fill(f *Family, v float64, labels []string) *dto.Metric {
	l.value = v
	for at, i := range f.byName {
		l.values[at] = labels[i]
		l.pairs[at].Name, l.pairs[at].Value = &f.Labels[i], &l.values[at]
		l.list[at] = &l.pairs[at]
	}
	l.metric.Label = l.list[:len(f.Labels)]
	return &l.metric
}

func (s *samples) append(f *Family, all ...*dto.Metric) {
	if f.index >= len(s.lists) {
		s.lists = append(s.lists, make([][]*dto.Metric, len(families)-len(s.lists))...)
	}
	s.lists[f.index] = append(s.lists[f.index], all...)
}

// join adds the samples of o, which must not change any more.
func (s *samples) join(o *samples) {
	for i, list := range o.lists {
		if len(list) > 0 {
			s.append(families[i], list...)
		}
	}
}

// typeOf has the types of families.
var typeOf = map[string]dto.MetricType{
	"counter": dto.MetricType_COUNTER, "gauge": dto.MetricType_GAUGE, "histogram": dto.MetricType_HISTOGRAM,
}

// gather reads all metrics. The families are sorted by name, as scrapers expect, and those without a sample left out.
func (m *Metrics) gather() ([]*dto.MetricFamily, error) {
	var out samples
	m.collect(&out)
	err := m.collectHistograms(&out)
	var all []*dto.MetricFamily
	for _, f := range families {
		if f.index < len(out.lists) && len(out.lists[f.index]) > 0 {
			all = append(all, &dto.MetricFamily{Name: &f.Name, Help: &f.Help, Type: typeOf[f.Type].Enum(), Metric: out.lists[f.index]})
		}
	}
	slices.SortFunc(all, func(a, b *dto.MetricFamily) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return all, err
}

func (m *Metrics) collectHistograms(out *samples) error {
	var errs []error
	for _, h := range m.histograms {
		found := make(chan prometheus.Metric, roleCount)
		h.vec.Collect(found)
		close(found)
		for each := range found {
			sample := new(dto.Metric)
			errs = append(errs, each.Write(sample))
			out.append(h.family, sample)
		}
	}
	return errors.Join(errs...)
}
