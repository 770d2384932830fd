package record

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Label is a member that the operator adds to every record.
type Label struct {
	Key, Value string
}

// maxLabelBytes bounds the encoded labels, so that the longest record fits in MaxLine.
const maxLabelBytes = 1024

// schemaKeys are all keys of the native schema. No label may have one of them.
var schemaKeys = strings.Fields(`
	type time seq version schema host boot_id kernel arch pid features
	conn netns family mapped local_addr local_port peer_addr peer_port role old_state new_state
	kernel_new_state time_wait_substate self sampled in_state_ns comm uid pid_source cgroup container
	container_runtime pod_uid container_claimed service_claimed error opened duration_ns established_ns sent_bytes received_bytes
	retransmits rtt_ns final_state closed_by reset_reason partial kind phase alert severity share rate_per_s
	occupancy occupancy_source capacity capacity_kind projected_occupancy exhaustion_in_s drops overflows cause advice
	service pid_share next_service next_share alerts_suppressed detection_left_out cgroup_unknown processes failures lasted_ns close_reason confidence approximate
	seen filtered lost lost_ring_full lost_ring_busy lost_reentry lost_queue_full lost_connections lost_time_wait_ends lost_alerts read dropped dropped_connections written written_bytes
	fired entered missed other_protocol deferred connections time_wait_unknown lost_resets stage reason signal state truncated pod namespace container_name image unit unit_claimed expires_in_ns time_wait_end time_wait_ends missed_time_wait_ends seeded_after_ns state_unavailable spooled_bytes lost_summaries
	window_start window_ns other time_waits sockets failed_reset_sent failed_reset_received failed_timeout failed_abort failed_refused failed_no_port failed_address_in_use
	duration_p50_ns duration_p99_ns rtt_p50_ns rtt_p99_ns
	started exe args parent user changed
	accept_queue backlog receive_queue_bytes send_queue_bytes cwnd updates dropped_updates lost_updates missed_updates late_updates recorder_files lost_recorder`)

// ParseLabels parses KEY=VALUE pairs. It returns an error if a key is not snake_case, is a
// key of the schema or is given twice, if a value is not UTF-8, or if all labels together
// take more than 1024 bytes of a record.
func ParseLabels(pairs []string) ([]Label, error) {
	labels := make([]Label, 0, len(pairs))
	taken := make(map[string]bool)
	for _, k := range schemaKeys {
		taken[k] = true
	}
	var encoded object
	for _, pair := range pairs {
		key, value, found := strings.Cut(pair, "=")
		switch {
		case !found:
			return nil, fmt.Errorf("%q has no '=': write KEY=VALUE", pair)
		case !isSnakeCase(key):
			return nil, fmt.Errorf("key %q is not snake_case: use a-z, 0-9 and _, a letter first", key)
		case taken[key]:
			return nil, fmt.Errorf("key %q is taken: choose one that neither a record nor another label has", key)
		case !utf8.ValidString(value):
			return nil, fmt.Errorf("the value of %q is not UTF-8", key)
		}
		taken[key] = true
		labels = append(labels, Label{key, value})
		encoded = encoded.string(key, value)
	}
	if size := len(encoded.line); size > maxLabelBytes {
		return nil, fmt.Errorf("labels take %d bytes of every record, at most %d fit: shorten them", size, maxLabelBytes)
	}
	return labels, nil
}

func isSnakeCase(key string) bool {
	for i, c := range []byte(key) {
		letter := c >= 'a' && c <= 'z'
		if !letter && (i == 0 || c != '_' && (c < '0' || c > '9')) {
			return false
		}
	}
	return key != ""
}
