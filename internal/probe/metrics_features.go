package probe

import (
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// MetricsSockets names what [Probe.CountSockets] needs, for doctor only: the run itself prints why it lacks it.
const MetricsSockets = "metrics_sockets"

// DetectMetricsFeatures tries what only metrics need. Their other needs are features of tracing.
func DetectMetricsFeatures() Features {
	return Features{{
		MetricsSockets,
		tryProgram(btf.NewCache(), atTCPSockets, asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}),
		"metrics lack tcpshift_sockets and tcpshift_service_sockets",
		"use Linux 5.10 or later with CONFIG_BPF_SYSCALL=y and CONFIG_PROC_FS=y",
	}}
}
