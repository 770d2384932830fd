package metrics

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/klauspost/compress/gzhttp"
	"github.com/klauspost/compress/gzip"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"

	"github.com/tcpshift/tcpshift/internal/httpserver"
)

const (
	// maxScrapes bounds the answers that are made at a time: each has all series.
	maxScrapes = 2
	// gatherEvery is the least time between two readings of all series. What comes sooner gets the last one.
	gatherEvery = 250 * time.Millisecond
)

// Gatherer gathers all metrics, at most once in gatherEvery.
func (m *Metrics) Gatherer() prometheus.Gatherer {
	return &paced{from: prometheus.GathererFunc(m.gather)}
}

// Handler answers /metrics, /healthz and /readyz.
func (m *Metrics) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", httpserver.InMemory(compressed(m.scrape()), maxScrapes))
	mux.HandleFunc("GET /healthz", m.healthz)
	mux.HandleFunc("GET /readyz", m.readyz)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintln(w, "tcpshift: /metrics, /healthz, /readyz")
	})
	return mux
}

// scrape answers with all series, without compression.
func (m *Metrics) scrape() http.Handler {
	return promhttp.HandlerFor(m.Gatherer(), promhttp.HandlerOpts{DisableCompression: true})
}

// compressed answers as gzip if the client accepts that. promhttp's own compression takes as long as the rest of a
// scrape (BenchmarkMetrics_Scrape). The fastest level takes a fraction of that, and its answer is longer by a sixth.
func compressed(answer http.Handler) http.Handler {
	wrap, err := gzhttp.NewWrapper(gzhttp.CompressionLevel(gzip.BestSpeed), gzhttp.EnableZstd(false))
	if err != nil {
		panic(err) // constant options
	}
	return wrap(answer)
}

// paced gathers from another gatherer, at most once in gatherEvery: any local user may scrape without a pause.
type paced struct {
	from prometheus.Gatherer

	mu       sync.Mutex
	at       time.Time
	families []*dto.MetricFamily // must not be changed
	err      error
}

// Gather implements [prometheus.Gatherer].
func (p *paced) Gather() ([]*dto.MetricFamily, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := time.Now(); p.at.IsZero() || now.Sub(p.at) >= gatherEvery {
		p.families, p.err = p.from.Gather()
		p.at = now
	}
	return p.families, p.err
}

// healthz fails if the loop has not turned for a while.
func (m *Metrics) healthz(w http.ResponseWriter, _ *http.Request) {
	if since, stuck := m.isStuck(time.Now()); stuck {
		http.Error(w, fmt.Sprintf("the trace loop has not turned for %v", since.Round(time.Second)), http.StatusServiceUnavailable)
		return
	}
	_, _ = fmt.Fprintln(w, "ok")
}

// readyz fails before every output has its start record, and when the run ends.
func (m *Metrics) readyz(w http.ResponseWriter, _ *http.Request) {
	switch m.stage.Load() {
	case starting:
		http.Error(w, "the trace has not begun", http.StatusServiceUnavailable)
	case stopping:
		http.Error(w, "the trace ends", http.StatusServiceUnavailable)
	default:
		_, _ = fmt.Fprintln(w, "ok")
	}
}
