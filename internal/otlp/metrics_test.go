package otlp

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	colmetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// metricReceiver keeps the metrics of the last request, by name.
type metricReceiver struct {
	colmetrics.UnimplementedMetricsServiceServer
	mu   sync.Mutex
	last map[string]*metricspb.Metric
}

func (r *metricReceiver) Export(_ context.Context, request *colmetrics.ExportMetricsServiceRequest) (*colmetrics.ExportMetricsServiceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = make(map[string]*metricspb.Metric)
	for _, resource := range request.GetResourceMetrics() {
		for _, scope := range resource.GetScopeMetrics() {
			for _, m := range scope.GetMetrics() {
				r.last[m.GetName()] = m
			}
		}
	}
	return &colmetrics.ExportMetricsServiceResponse{}, nil
}

func (r *metricReceiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	body, _ := io.ReadAll(request.Body)
	var message colmetrics.ExportMetricsServiceRequest
	if request.URL.Path != "/prefix/v1/metrics" || proto.Unmarshal(body, &message) != nil {
		http.Error(w, "no metrics", http.StatusBadRequest)
		return
	}
	_, _ = r.Export(request.Context(), &message)
}

func (r *metricReceiver) get(name string) *metricspb.Metric {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last[name]
}

// A receiver gets counters with their values and native histograms as exponential ones, over gRPC and HTTP; the last
// values come with the end. One that is away at first is said, and is found later.
func TestMetrics_Sent(t *testing.T) {
	t.Setenv("OTEL_METRIC_EXPORT_INTERVAL", "100")
	t.Setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
	eachTransport(t, func(t *testing.T, overHTTP bool) {
		registry := prometheus.NewRegistry()
		counter := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tcpshift_test_total", Help: "Tests."}, []string{"role"})
		histogram := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "tcpshift_test_seconds", Help: "Time.", Buckets: []float64{1, 2}, NativeHistogramBucketFactor: 1.1})
		registry.MustRegister(counter, histogram)
		counter.WithLabelValues("client").Add(7)
		histogram.Observe(1.5)

		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		address := listener.Addr().String()
		listener.Close()
		messages := make(chan string, 100)
		s, err := SendMetrics(t.Context(), Config{Address: address, HTTP: overHTTP, Path: "/prefix", Dial: new(net.Dialer).DialContext},
			registry, func(message string) { messages <- message })
		if err != nil {
			t.Fatal(err)
		}
		if got := <-messages; !strings.HasPrefix(got, "metrics are not sent to "+address) {
			t.Errorf("the first message is %q", got)
		}
		var r metricReceiver
		if listener, err = net.Listen("tcp", address); err != nil {
			t.Fatal(err)
		}
		if overHTTP {
			server := &http.Server{Handler: &r}
			go func() { _ = server.Serve(listener) }()
			defer server.Close()
		} else {
			server := grpc.NewServer()
			colmetrics.RegisterMetricsServiceServer(server, &r)
			go func() { _ = server.Serve(listener) }()
			defer server.Stop()
		}
		if got := <-messages; got != "metrics are sent to "+address+" again" {
			t.Errorf("the second message is %q", got)
		}
		sum := r.get("tcpshift_test_total").GetSum()
		if points := sum.GetDataPoints(); !sum.GetIsMonotonic() || len(points) != 1 || points[0].GetAsDouble() != 7 || points[0].GetAttributes()[0].GetValue().GetStringValue() != "client" {
			t.Errorf("the counter is %v", sum)
		}
		if points := r.get("tcpshift_test_seconds").GetExponentialHistogram().GetDataPoints(); len(points) != 1 || points[0].GetCount() != 1 {
			t.Errorf("the histogram is %v", r.get("tcpshift_test_seconds"))
		}
		counter.WithLabelValues("client").Add(1)
		began := time.Now()
		s.Close()
		if points := r.get("tcpshift_test_total").GetSum().GetDataPoints(); len(points) != 1 || points[0].GetAsDouble() != 8 || time.Since(began) > tooLong {
			t.Errorf("the last values are %v, after %v", points, time.Since(began))
		}
	})
}
