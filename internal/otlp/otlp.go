// Package otlp sends lines of the otel schema, and metrics, to an OpenTelemetry receiver, with the exporters of
// the OpenTelemetry SDK. It must not keep lines, and must not try again: its caller does both.
package otlp

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploggrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	"go.opentelemetry.io/otel/log"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	"go.opentelemetry.io/otel/sdk/resource"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
)

const (
	// exportLimit bounds one request.
	exportLimit = 10 * time.Second
	// longestReconnect bounds the pause of gRPC between two attempts to connect: the caller has its own.
	longestReconnect = time.Second
)

// Config says where an Exporter or a MetricSender sends, how it gets there, and what the resource of the records is.
type Config struct {
	Address string      // host:port
	HTTP    bool        // protobuf over HTTP; else gRPC
	Path    string      // over HTTP: what comes before /v1/logs or /v1/metrics in the URL, such as /otlp; empty: nothing
	TLS     *tls.Config // nil: no TLS
	// Dial connects to the receiver.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// The attributes service.version, host.name and host.arch of the resource; empty: not known.
	Version, Host, Arch string
}

// Exporter sends records to a receiver. It must be used by one goroutine at a time.
type Exporter struct {
	provider *sdklog.LoggerProvider
	logger   log.Logger
	exporter sdklog.Exporter
	batch    batch
	rejected atomic.Int64 // of the request that is being sent; allRejected: all its records
}

const allRejected = -1

// New makes an exporter. It does not connect. The SDK also reads variables of the environment: those for
// headers (OTEL_EXPORTER_OTLP_HEADERS) and compression are in force, and Config wins for all others. New
// silences the SDK's error handler in the whole process, because Export returns all errors.
func New(ctx context.Context, c Config) (*Exporter, error) {
	e := &Exporter{}
	var err error
	if c.HTTP {
		e.exporter, err = e.overHTTP(ctx, c)
	} else {
		e.exporter, err = e.overGRPC(ctx, c)
	}
	if err != nil {
		return nil, err
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(error) {})) // Export returns all errors
	e.provider = sdklog.NewLoggerProvider(sdklog.WithResource(c.resource()), sdklog.WithProcessor(&e.batch),
		sdklog.WithAttributeCountLimit(-1), sdklog.WithAttributeValueLengthLimit(-1))
	e.logger = e.provider.Logger("tcpshift", log.WithInstrumentationVersion(c.Version))
	return e, nil
}

func (c *Config) resource() *resource.Resource {
	attributes := []attribute.KeyValue{attribute.String("service.name", "tcpshift"), attribute.String("os.type", "linux")}
	for _, known := range []struct{ key, value string }{{"service.version", c.Version}, {"host.name", c.Host}, {"host.arch", c.Arch}} {
		if known.value != "" {
			attributes = append(attributes, attribute.String(known.key, known.value))
		}
	}
	return resource.NewSchemaless(attributes...)
}

// dialOptions make gRPC connect by Dial.
func (c *Config) dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return c.Dial(ctx, "tcp", address) }),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: longestReconnect / 10, Multiplier: 1.6, MaxDelay: longestReconnect}}),
	}
}

// target is the receiver in gRPC's spelling: Dial looks the name up.
func (c *Config) target() string { return "passthrough:///" + c.Address }

// transport connects by Dial, and keeps one connection.
func (c *Config) transport() *http.Transport {
	return &http.Transport{DialContext: c.Dial, TLSClientConfig: c.TLS, ForceAttemptHTTP2: true, MaxIdleConns: 1, IdleConnTimeout: time.Minute}
}

func (e *Exporter) overGRPC(ctx context.Context, c Config) (sdklog.Exporter, error) {
	options := []otlploggrpc.Option{
		otlploggrpc.WithEndpoint(c.target()),
		otlploggrpc.WithTimeout(exportLimit),
		otlploggrpc.WithRetry(otlploggrpc.RetryConfig{Enabled: false}),
		otlploggrpc.WithDialOption(append(c.dialOptions(), grpc.WithUnaryInterceptor(e.intercept))...),
	}
	if c.TLS == nil {
		options = append(options, otlploggrpc.WithInsecure())
	} else {
		options = append(options, otlploggrpc.WithTLSCredentials(credentials.NewTLS(c.TLS)))
	}
	return otlploggrpc.New(ctx, options...)
}

func (e *Exporter) overHTTP(ctx context.Context, c Config) (sdklog.Exporter, error) {
	options := []otlploghttp.Option{
		otlploghttp.WithEndpoint(c.Address),
		otlploghttp.WithURLPath(c.Path + "/v1/logs"),
		otlploghttp.WithTimeout(exportLimit),
		otlploghttp.WithRetry(otlploghttp.RetryConfig{Enabled: false}),
		otlploghttp.WithHTTPClient(&http.Client{Transport: &rejections{c.transport(), e}, Timeout: exportLimit}),
	}
	if c.TLS == nil {
		options = append(options, otlploghttp.WithInsecure())
	} else {
		options = append(options, otlploghttp.WithTLSClientConfig(c.TLS))
	}
	return otlploghttp.New(ctx, options...)
}

// Export sends whole lines as one request, and returns when the receiver has answered, or after 10 s with an
// error. rejected is how many lines the receiver refuses for good, together with those that are no
// records. After an error the caller must send all lines again, although the receiver may have taken
// them.
func (e *Exporter) Export(ctx context.Context, lines []byte) (rejected int, err error) {
	rejected = e.emit(ctx, lines)
	if len(e.batch.records) == 0 {
		return rejected, nil
	}
	e.rejected.Store(0)
	if err := e.exporter.Export(ctx, e.batch.records); err != nil {
		return 0, err
	}
	if refused := e.rejected.Load(); refused == allRejected {
		rejected += len(e.batch.records)
	} else {
		rejected += int(min(refused, int64(len(e.batch.records))))
	}
	return rejected, nil
}

// Close ends the connection. It waits for a second at most.
func (e *Exporter) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return errors.Join(e.exporter.Shutdown(ctx), e.provider.Shutdown(ctx))
}

// batch is the SDK's processor: it collects the records of one Export.
type batch struct{ records []sdklog.Record }

func (b *batch) Enabled(context.Context, sdklog.EnabledParameters) bool { return true }

func (b *batch) OnEmit(_ context.Context, r *sdklog.Record) error {
	b.records = append(b.records, r.Clone())
	return nil
}

func (b *batch) Shutdown(context.Context) error { return nil }

func (b *batch) ForceFlush(context.Context) error { return nil }
