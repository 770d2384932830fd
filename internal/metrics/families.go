package metrics

import (
	"cmp"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Family describes a metric.
type Family struct {
	Name, Help string
	Type       string // counter, gauge or histogram
	Unit       string // seconds, bytes or ratio; "": a number
	Labels     []string
	// OpenTelemetry is the name in its semantic conventions of what means the same; "": there is none.
	OpenTelemetry string

	index   int       // in families
	byName  []int     // the indexes of Labels in the order of their names
	buckets []float64 // the upper bounds of the classic buckets of a histogram
}

// families are all families, by the order of their declaration.
var families []*Family

// Families returns the metrics that there can be.
func Families() []*Family { return families }

func family(name, kind, unit, help string, labels ...string) *Family {
	f := &Family{Name: name, Help: help, Type: kind, Unit: unit, Labels: labels, index: len(families)}
	for i := range labels {
		f.byName = append(f.byName, i)
	}
	slices.SortFunc(f.byName, func(a, b int) int { return cmp.Compare(labels[a], labels[b]) })
	families = append(families, f)
	return f
}

func counter(name, unit, help string, labels ...string) *Family {
	return family(name, "counter", unit, help, labels...)
}

func gauge(name, unit, help string, labels ...string) *Family {
	return family(name, "gauge", unit, help, labels...)
}

func histogram(name, unit, help string, buckets []float64, labels ...string) *Family {
	f := family(name, "histogram", unit, help, labels...)
	f.buckets = buckets
	return f
}

// as names what means the same in OpenTelemetry.
func (f *Family) as(openTelemetry string) *Family {
	f.OpenTelemetry = openTelemetry
	return f
}

// vec makes the histograms of a family: with native buckets, whose bounds grow by a tenth, and classic ones.
func (f *Family) vec() *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: f.Name, Help: f.Help, Buckets: f.buckets,
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
	}, f.Labels)
}

// What happens to connections.
var (
	familyTransitions = counter("tcpshift_transitions_total", "", "Transitions by the state that the socket left and the one that it entered. Absent if no output has transitions.", "old_state", "new_state")
	familyConnections = counter("tcpshift_connections_total", "", "Connections that have ended, by the service that owned the socket, its role, and how they ended.", "service", "role", "closed_by")
	familyFailed      = counter("tcpshift_failed_connects_total", "", "Connects of clients that failed, by service and cause. They count as connections, too.", "service", "cause")
	familySent        = counter("tcpshift_sent_bytes_total", "bytes", "Payload sent by connections that have ended.", "role")
	familyReceived    = counter("tcpshift_received_bytes_total", "bytes", "Payload received by connections that have ended.", "role")
	familyRetransmits = counter("tcpshift_retransmitted_segments_total", "", "Segments retransmitted by connections that have ended.", "role")
	familyHandshake   = histogram("tcpshift_handshake_duration_seconds", "seconds", "Time from SYN_SENT to ESTABLISHED of clients.",
		[]float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 3, 7, 15, 31})
	familyRTT = histogram("tcpshift_rtt_seconds", "seconds", "Smoothed round-trip time at the end of a connection.",
		[]float64{.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1}, "role")
	familyDuration = histogram("tcpshift_connection_duration_seconds", "seconds", "Time from the opening of a connection to its end, without connects that failed.",
		[]float64{.001, .01, .1, .5, 1, 5, 10, 30, 60, 300, 900, 3600, 14400, 86400}, "role")
)

// What there is now.
var (
	familySockets        = gauge("tcpshift_sockets", "", "Sockets by network namespace and state, as the kernel's tables had them at the last count.", "netns", "state").as("system.network.connection.count")
	familyServiceSockets = gauge("tcpshift_service_sockets", "", "The same sockets by the service that owns them. A TIME_WAIT has no owner.", "service", "state")
	familySocketsAt      = gauge("tcpshift_sockets_counted_timestamp_seconds", "seconds", "When the sockets were counted, in seconds since 1970.")
	familyPortsUsed      = gauge("tcpshift_ephemeral_ports_used_ratio", "ratio", "Share of the local ports that are in use, of the destination for which it is largest.", "netns")
	familyPorts          = gauge("tcpshift_ephemeral_ports", "", "Local ports that connect() may choose for that destination.", "netns")
	familyTimeWaits      = gauge("tcpshift_time_waits", "", "Timewait sockets, by the kernel's own count.", "netns")
	familyTimeWaitLimit  = gauge("tcpshift_time_waits_limit", "", "The most that the kernel keeps: net.ipv4.tcp_max_tw_buckets.", "netns")
	familyListenQueue    = gauge("tcpshift_listen_queue_used_ratio", "ratio", "Share of the accept queue that is in use, of the listener for which it is largest.", "netns")
	familyServiceQueue   = gauge("tcpshift_service_listen_queue_used_ratio", "ratio", "The same by the service that listens.", "service")
)

// Alerts.
var (
	familyAlertsOpen       = gauge("tcpshift_alerts_open", "", "Alerts that are open.", "kind", "severity")
	familyAlerts           = counter("tcpshift_alerts_total", "", "Alerts that have been opened.", "kind")
	familyAlertsSuppressed = counter("tcpshift_alerts_suppressed_total", "", "Causes that had no alert because too many were open.")
	familyLeftOut          = counter("tcpshift_detection_left_out_total", "", "What detection has left out because a table was full.")
)

// What tcpshift has seen, and what it has not.
var (
	familyFirings          = counter("tcpshift_tracepoint_firings_total", "", "Times that the kernel's tracepoint fired, for any protocol.")
	familyMissed           = counter("tcpshift_tracepoint_missed_total", "", "Firings that the primary program missed. A backup program handles them, unless they count as lost.")
	familyOtherProtocol    = counter("tcpshift_tracepoint_other_protocol_total", "", "Firings for a socket that is not TCP.")
	familyFiltered         = counter("tcpshift_transitions_filtered_total", "", "Transitions that a filter has left out, or that nothing needs.")
	familyRead             = counter("tcpshift_transitions_read_total", "", "Transitions that the kernel programs have emitted and the loop has read.")
	familyDeferred         = gauge("tcpshift_transitions_deferred", "", "Transitions that wait for the next one of their socket.")
	familyLost             = counter("tcpshift_transitions_lost_total", "", "Transitions lost in the kernel, by cause.", "cause")
	familyResetsLost       = counter("tcpshift_resets_lost_total", "", "Resets that may have been missed.")
	familyTimeWaitUnknown  = counter("tcpshift_time_wait_unknown_total", "", "Closes for which it is not known whether they left a TIME_WAIT.")
	familyTimeWaitMissed   = counter("tcpshift_time_wait_ends_missed_total", "", "Ends of TIME_WAITs that the kernel programs did not emit.")
	familyMissedUpdates    = counter("tcpshift_updates_missed_total", "", "Updates of connections that live which the kernel did not emit, because the ring had little room.")
	familyLateUpdates      = counter("tcpshift_update_rounds_late_total", "", "Rounds of updates that were left out because the one before took too long.")
	familyRecorderFiles    = counter("tcpshift_recorder_files_total", "", "Files that the flight recorder has written.")
	familyRecorderLost     = counter("tcpshift_recorder_events_lost_total", "", "Events that the flight recorder had for a file that it could not write.")
	familyStateUnavailable = counter("tcpshift_socket_state_unavailable_total", "", "Transitions of sockets for which the kernel had no room to keep a state.")
	familyCgroupUnknown    = counter("tcpshift_cgroup_unknown_total", "", "Transitions whose cgroup is not known.")
)

// Outputs.
var (
	familyOutputUp       = gauge("tcpshift_output_up", "", "1 if the output has not failed.", "output")
	familyOutputWritten  = counter("tcpshift_output_records_written_total", "", "Records written.", "output", "type")
	familyOutputDropped  = counter("tcpshift_output_records_dropped_total", "", "Events that the output does not select.", "output", "type")
	familyOutputLost     = counter("tcpshift_output_records_lost_total", "", "Records that the output wanted and has not written, because its queue or its spool was full.", "output", "type")
	familyOutputRejected = counter("tcpshift_output_records_rejected_total", "", "Records that the reader has refused for good.", "output")
	familyOutputBytes    = counter("tcpshift_output_written_bytes_total", "bytes", "Bytes that the output has taken.", "output")
	familyOutputQueue    = gauge("tcpshift_output_queue_bytes", "bytes", "Bytes that wait for the reader of the output.", "output")
	familyOutputLimit    = gauge("tcpshift_output_queue_limit_bytes", "bytes", "Size of the queue of the output.", "output")
	familyOutputSpool    = gauge("tcpshift_output_spool_bytes", "bytes", "Bytes in the spool of the output. Absent if it has none.", "output")
)

// tcpshift itself. The names that begin with process_ are those of all Prometheus clients.
var (
	familyBuild   = gauge("tcpshift_build_info", "", "Always 1. The labels are the version of tcpshift, of the record schema, and of Go.", "version", "schema", "go_version")
	familyTurnAge = gauge("tcpshift_loop_turn_age_seconds", "seconds", "Time since the trace loop has turned last. A quiet host lets it sleep for 5 s.")
	familyCPU     = counter("process_cpu_seconds_total", "seconds", "CPU time of tcpshift, user and system.").as("process.cpu.time")
	familyMemory  = gauge("process_resident_memory_bytes", "bytes", "Memory of tcpshift that is resident.").as("process.memory.usage")
	familyStart   = gauge("process_start_time_seconds", "seconds", "When tcpshift started, in seconds since 1970.")
)
