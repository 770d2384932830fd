package otlp

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	bridge "go.opentelemetry.io/contrib/bridges/prometheus"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"google.golang.org/grpc/credentials"
)

// lastMetrics bounds the last request, at the end of the run.
const lastMetrics = time.Second

// MetricSender sends metrics to a receiver at an interval, in the background.
type MetricSender struct {
	provider *sdkmetric.MeterProvider
	exporter *notifying
}

// SendMetrics starts to send what from gathers to the receiver: every minute, or as the variable
// OTEL_METRIC_EXPORT_INTERVAL says, in milliseconds. What cannot be sent is not kept, because the next request has
// newer values of the same counters. notify gets a message when requests begin to fail, and when they succeed again;
// it is called from another goroutine. SendMetrics silences the SDK's error handler in the whole process, as [New]
// does.
func SendMetrics(ctx context.Context, c Config, from prometheus.Gatherer, notify func(message string)) (*MetricSender, error) {
	var exporter sdkmetric.Exporter
	var err error
	if c.HTTP {
		exporter, err = c.metricsOverHTTP(ctx)
	} else {
		exporter, err = c.metricsOverGRPC(ctx)
	}
	if err != nil {
		return nil, err
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(error) {})) // notify gets them
	notifies := &notifying{Exporter: exporter, address: c.Address, notify: notify}
	reader := sdkmetric.NewPeriodicReader(notifies,
		sdkmetric.WithTimeout(exportLimit), sdkmetric.WithProducer(bridge.NewMetricProducer(bridge.WithGatherer(from))))
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithResource(c.resource()), sdkmetric.WithReader(reader))
	return &MetricSender{provider, notifies}, nil
}

func (c *Config) metricsOverGRPC(ctx context.Context) (sdkmetric.Exporter, error) {
	options := []otlpmetricgrpc.Option{
		otlpmetricgrpc.WithEndpoint(c.target()),
		otlpmetricgrpc.WithTimeout(exportLimit),
		otlpmetricgrpc.WithRetry(otlpmetricgrpc.RetryConfig{Enabled: false}),
		otlpmetricgrpc.WithDialOption(c.dialOptions()...),
	}
	if c.TLS == nil {
		options = append(options, otlpmetricgrpc.WithInsecure())
	} else {
		options = append(options, otlpmetricgrpc.WithTLSCredentials(credentials.NewTLS(c.TLS)))
	}
	return otlpmetricgrpc.New(ctx, options...)
}

func (c *Config) metricsOverHTTP(ctx context.Context) (sdkmetric.Exporter, error) {
	options := []otlpmetrichttp.Option{
		otlpmetrichttp.WithEndpoint(c.Address),
		otlpmetrichttp.WithURLPath(c.Path + "/v1/metrics"),
		otlpmetrichttp.WithTimeout(exportLimit),
		otlpmetrichttp.WithRetry(otlpmetrichttp.RetryConfig{Enabled: false}),
		otlpmetrichttp.WithHTTPClient(&http.Client{Transport: c.transport(), Timeout: exportLimit}),
	}
	if c.TLS == nil {
		options = append(options, otlpmetrichttp.WithInsecure())
	} else {
		options = append(options, otlpmetrichttp.WithTLSClientConfig(c.TLS))
	}
	return otlpmetrichttp.New(ctx, options...)
}

// Close sends the last values, for up to a second, and ends the connection. notify gets a message if that fails, unless
// requests failed before.
func (s *MetricSender) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), lastMetrics)
	defer cancel()
	s.exporter.ending.Store(true)
	switch err := s.provider.Shutdown(ctx); {
	case err != nil && !s.exporter.failed:
		s.exporter.notify(fmt.Sprintf("the last metrics are not sent to %s: %v", s.exporter.address, err))
	case err == nil && s.exporter.failed:
		s.exporter.notify("the last metrics are sent to " + s.exporter.address)
	}
}

// notifying notifies the operator of the first failure, and of the first success after it. Once ending is true, Close
// notifies instead: Shutdown cancels the request that is under way, and no other follows.
type notifying struct {
	sdkmetric.Exporter
	address string
	notify  func(message string)
	failed  bool
	ending  atomic.Bool
}

func (n *notifying) Export(ctx context.Context, metrics *metricdata.ResourceMetrics) error {
	err := n.Exporter.Export(ctx, metrics)
	switch {
	case n.ending.Load():
		return err
	case err != nil && !n.failed:
		n.notify(fmt.Sprintf("metrics are not sent to %s: %v: it tries again", n.address, err))
	case err == nil && n.failed:
		n.notify("metrics are sent to " + n.address + " again")
	}
	n.failed = err != nil
	return err
}
