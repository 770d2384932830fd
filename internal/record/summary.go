package record

import (
	"strconv"

	"github.com/tcpshift/tcpshift/internal/summary"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Summary implements [Encoder].
func (n *Native) Summary(dst []byte, r *summary.Row) []byte {
	o := n.begin(dst, "summary", r.End).summaryWindow("", r)
	if r.OwnerKnown {
		o = o.string("service", r.Service).
			trueIf("service_claimed", r.ServiceClaimed).
			bytes("comm", r.Comm.Bytes()).
			cgroup(r.Cgroup, maxAlertPath).
			workload(r.Cgroup)
	}
	o = o.literalIfSet("role", r.Role.String()).
		endpoints(summaryEndpoints(r)).
		trueIf("other", r.Other)
	return n.end(o.summaryNumbers("", r))
}

// Summary implements [Encoder].
func (e *ECS) Summary(dst []byte, r *summary.Row) []byte {
	o := e.begin(dst, r.End, ecsSummary).summaryWindow(ownPrefix, r)
	if r.OwnerKnown {
		o = o.string("service.name", r.Service).
			trueIf("tcpshift.service_claimed", r.ServiceClaimed).
			bytes("process.name", r.Comm.Bytes()).
			ecsCgroup(r.Cgroup)
	}
	local, peer := summaryEndpoints(r)
	o = o.literalIfSet("tcpshift.role", r.Role.String()).
		ecsEndpoints(r.Role, local, peer).
		trueIf("tcpshift.other", r.Other)
	return e.end(o.summaryNumbers(ownPrefix, r))
}

// Summary implements [Encoder].
func (e *OTel) Summary(dst []byte, r *summary.Row) []byte {
	o := e.begin(dst, r.End, otelSummary).summaryWindow(ownPrefix, r)
	if r.OwnerKnown {
		o = o.string("tcpshift.service", r.Service).
			trueIf("tcpshift.service_claimed", r.ServiceClaimed).
			bytes("process.title", r.Comm.Bytes()).
			otelCgroup(r.Cgroup)
	}
	local, peer := summaryEndpoints(r)
	o = o.literalIfSet("tcpshift.role", r.Role.String()).
		otelEndpoints(local, peer).
		trueIf("tcpshift.other", r.Other)
	return e.end(o.summaryNumbers(ownPrefix, r), len(dst))
}

// summaryEndpoints returns the endpoints of a row; a summary does not know some of their parts.
func summaryEndpoints(r *summary.Row) (local, peer tcp.Endpoint) {
	peer.Addr, peer.Port = r.Peer, r.Port
	if r.Role == tcp.RoleServer || r.Role == tcp.RoleListener {
		local.Port, peer.Port = r.Port, 0
	}
	return local, peer
}

// summaryWindow appends the beginning and the length of the window; its end is the time of the record.
func (o object) summaryWindow(prefix string, r *summary.Row) object {
	var start timeCache
	return o.time(prefix+"window_start", &start, r.Start).
		uint(prefix+"window_ns", uint64(r.End.Sub(r.Start)))
}

// failedNames are the keys of [summary.Totals.Failed].
var failedNames = func() (names [len(summary.Failures)]string) {
	for i, by := range summary.Failures {
		names[i] = "failed_" + string(by)
	}
	return names
}()

func (o object) summaryNumbers(prefix string, r *summary.Row) object {
	o = o.uint(prefix+"connections", r.Connections).
		uint(prefix+"sent_bytes", r.Sent).
		uint(prefix+"received_bytes", r.Received).
		uint(prefix+"retransmits", r.Retransmits).
		uint(prefix+"time_waits", r.TimeWaits)
	for i, name := range failedNames {
		o = o.uint(prefix+name, r.Failed[i])
	}
	return o.quantiles(prefix+"duration", r.Duration).quantiles(prefix+"rtt", r.RTT)
}

// quantiles appends nothing if they are not known.
func (o object) quantiles(name string, q summary.Quantiles) object {
	if !q.Known {
		return o
	}
	return o.uint(name+"_p50_ns", uint64(q.P50)).uint(name+"_p99_ns", uint64(q.P99))
}

// Summary implements [Encoder].
func (t Text) Summary(dst []byte, r *summary.Row) []byte {
	begin := len(dst)
	dst = append(appendClock(append(dst, "# "...), r.End), " summary of "...)
	dst = append(appendDuration(dst, r.End.Sub(r.Start)), ": "...)
	dst = appendSummaryOf(dst, r)
	dst = strconv.AppendUint(append(dst, ": connections "...), r.Connections, 10)
	dst = appendSize(append(dst, ", sent "...), r.Sent)
	dst = appendSize(append(dst, ", received "...), r.Received)
	for i, name := range failedNames {
		if r.Failed[i] > 0 {
			dst = strconv.AppendUint(append(append(append(dst, ", "...), name...), ' '), r.Failed[i], 10)
		}
	}
	if r.TimeWaits > 0 {
		dst = strconv.AppendUint(append(dst, ", TIME_WAIT "...), r.TimeWaits, 10)
	}
	dst = appendQuantiles(dst, ", duration ", r.Duration)
	return t.finishRemark(append(appendQuantiles(dst, ", RTT ", r.RTT), '\n'), begin, "")
}

// appendSummaryOf appends which connections a row sums up: service, role, peer and port, those that are known.
func appendSummaryOf(dst []byte, r *summary.Row) []byte {
	switch {
	case r.Other:
		dst = append(dst, "all others"...)
	case r.OwnerKnown:
		dst = appendPrintable(dst, []byte(r.Service))
	default:
		dst = append(dst, "unknown owner"...)
	}
	if role := r.Role.String(); role != "" {
		dst = append(append(dst, ", "...), role...)
	}
	if r.Peer.IsValid() {
		dst = r.Peer.AppendTo(append(dst, ", peer "...))
	}
	if r.Port != 0 {
		dst = strconv.AppendUint(append(dst, ", port "...), uint64(r.Port), 10)
	}
	return dst
}

func appendQuantiles(dst []byte, name string, q summary.Quantiles) []byte {
	if !q.Known {
		return dst
	}
	dst = appendDuration(append(append(dst, name...), "p50 "...), q.P50)
	return appendDuration(append(dst, " p99 "...), q.P99)
}
