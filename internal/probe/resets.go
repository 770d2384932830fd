package probe

import (
	"strings"

	"github.com/cilium/ebpf/btf"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// The tracepoints of bpf/reset.h.
const (
	receiveReset = "tcp_receive_reset"
	sendReset    = "tcp_send_reset"
)

// sendResetHasReason reports whether the tracepoint tcp_send_reset gives a reason: since
// 6.10 it is the argument after sk and skb.
func sendResetHasReason(types *btf.Cache) bool {
	spec, err := types.Kernel()
	if err != nil {
		return false
	}
	var named *btf.Typedef
	if err := spec.TypeByName("btf_trace_"+sendReset, &named); err != nil {
		return false
	}
	pointer, ok := named.Type.(*btf.Pointer)
	if !ok {
		return false
	}
	proto, ok := pointer.Target.(*btf.FuncProto)
	return ok && len(proto.Params) == 4 // the first is the tracepoint's own
}

// ResetReasons are the names of the running kernel's enum sk_rst_reason without their
// common prefix, by code, which is the value plus 1 (0: not known). The map is nil where the
// kernel has no such type (before 6.10).
func (p *Probe) ResetReasons() map[tcp.ResetCode]string {
	return p.resetReasons
}

func resetReasons(types *btf.Cache) map[tcp.ResetCode]string {
	spec, err := types.Kernel()
	if err != nil {
		return nil
	}
	var reasons *btf.Enum
	if err := spec.TypeByName("sk_rst_reason", &reasons); err != nil {
		return nil
	}
	names := make(map[tcp.ResetCode]string)
	for _, value := range reasons.Values {
		if value.Value < 255 {
			names[tcp.ResetCode(value.Value)+1] = strings.TrimPrefix(value.Name, "SK_RST_REASON_")
		}
	}
	return names
}
