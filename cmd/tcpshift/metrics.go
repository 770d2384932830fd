package main

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"

	"github.com/spf13/pflag"

	"github.com/tcpshift/tcpshift/internal/metrics"
	"github.com/tcpshift/tcpshift/internal/monitor"
	"github.com/tcpshift/tcpshift/internal/output"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/tcp"
	"github.com/tcpshift/tcpshift/internal/trace"
)

// metricsOptions are where metrics go. Without an address there are none, and nothing counts them.
type metricsOptions struct {
	listen    string // HOST:PORT; empty: nowhere
	webConfig string // path; empty: neither TLS nor passwords
}

func (m *metricsOptions) wanted() bool { return m.listen != "" }

func addMetricsFlags(flags *pflag.FlagSet, m *metricsOptions) {
	flags.Var(single(&m.listen, "HOST:PORT", parseListenAddress), "metrics-listen", "serve metrics to Prometheus at this address, such as 127.0.0.1:9464; every local user can read them there")
	flags.Var(single(&m.webConfig, "FILE", parseWebConfigPath), "metrics-web-config", "TLS and passwords for --metrics-listen: a web configuration file as those of Prometheus' exporters")
}

// parseListenAddress parses HOST:PORT. An empty host means all addresses of this host.
func parseListenAddress(s string) (string, error) {
	_, port, err := net.SplitHostPort(s)
	n, numberErr := strconv.ParseUint(port, 10, 16)
	if err != nil || numberErr != nil || n == 0 {
		return "", fmt.Errorf("%q is not an address to listen on: use HOST:PORT, such as 127.0.0.1:9464", s)
	}
	return s, nil
}

func parseWebConfigPath(s string) (string, error) {
	if s == "" {
		return "", errors.New("needs the path of a file")
	}
	return s, nil
}

// checkMetrics rejects flags that need --metrics-listen without it.
func (o *traceOptions) checkMetrics() error {
	if o.metrics.webConfig != "" && o.metrics.listen == "" {
		return usagef("--metrics-web-config: nothing listens: add --metrics-listen, such as --metrics-listen 127.0.0.1:9464")
	}
	return nil
}

// listenForScrapes listens on the address of the metrics, and answers nothing yet. It returns nil without an address.
func (o *traceOptions) listenForScrapes() (*metrics.Server, error) {
	if o.metrics.listen == "" {
		return nil, nil
	}
	var own func(cookie uint64)
	if o.excludeSelf {
		if o.ownSockets == nil {
			o.ownSockets = new(output.OwnSockets)
		}
		own = o.ownSockets.Add
	}
	server, err := metrics.Listen(o.metrics.listen, o.metrics.webConfig, own)
	if err != nil {
		return nil, fmt.Errorf("--metrics-listen: %w", err)
	}
	return server, nil
}

// startMetrics counts for scrapes, and answers them. It returns a function that ends that.
func (o *traceOptions) startMetrics(cfg *trace.Config, p *probe.Probe, outs openOutputs, server *metrics.Server) (end func()) {
	if !o.metrics.wanted() {
		return func() {}
	}
	c := metrics.Config{Version: buildVersion(), AllTransitions: o.kernelFilter().Transitions == nil, Alerts: o.wants("alert")}
	for i, each := range outs {
		c.Outputs = append(c.Outputs, metrics.Output{Name: cfg.Outputs[i].MetricsName, Limit: each.queueSize, Queue: each.queue})
	}
	m := metrics.New(c)
	counter := monitor.NewSocketCounter(p.CountSockets, o.filter, warn)
	cfg.Metrics, cfg.SocketCounts = m, counter
	server.Serve(m, func(err error) { warn("--metrics-listen: there are no more metrics: " + err.Error()) })
	return func() {
		counter.Close()
		m.Close()
	}
}

// metricsNames are the names of the outputs in labels: those that were given, else the kind of each. Paths and
// addresses are no names.
func (all openOutputs) metricsNames() (names []string) {
	for i, each := range all {
		name := fmt.Sprintf("%s-%d", each.scheme, i+1)
		switch {
		case slices.Contains(each.given, "name"):
			name = record.Printable(each.name)
		case each.path == "-":
			name = "stdout"
		}
		for slices.Contains(names, name) {
			name += "+"
		}
		names = append(names, name)
	}
	return names
}

// addMetricsTransitions adds what metrics need of transitions that nothing else needs: the ends of connections, and
// the handshakes of clients.
func (m *metricsOptions) addMetricsTransitions(needed *tcp.Transitions) {
	if m.wanted() {
		needed.Join(tcp.EndTransitions())
		needed.Add([]tcp.State{tcp.SynSent}, []tcp.State{tcp.Established})
		needed.Add([]tcp.State{0}, tcp.States()) // sockets that are counted make no transition: see bpf/dump.h
	}
}
