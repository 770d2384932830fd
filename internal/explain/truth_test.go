package explain

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tcpshift/tcpshift/internal/detect"
)

// Some words are often used wrongly: each sentence with one must match its pattern.
func TestFacts_DelicateWords(t *testing.T) {
	tests := []struct {
		name, word, in string // in is a topic, or "" for all
		allowed        *regexp.Regexp
	}{
		{"tcp_tw_recycle is gone and never advice", "tw_recycle", "",
			regexp.MustCompile(`was removed in Linux 4\.12`)},
		{"tcp_fin_timeout does not change TIME_WAIT", "tcp_fin_timeout", "TIME_WAIT",
			regexp.MustCompile(`does not change`)},
		{"tcp_max_tw_buckets is not to be lowered", "tcp_max_tw_buckets", "",
			regexp.MustCompile(`Do not lower`)},
		{"SO_LINGER with 0 is not advice", "SO_LINGER", "",
			regexp.MustCompile(`do not use SO_LINGER`)},
		{"tcp_tw_reuse is for outgoing connections, on loopback by default", "tcp_tw_reuse", "",
			regexp.MustCompile(`outgoing .* timestamps: the default 2 does so on loopback only`)},
		{"SYN cookies stay on", "tcp_syncookies", "",
			regexp.MustCompile(`keep .* default 1`)},
		{"resetting on overflow is not advice", "abort_on_overflow", "", nil},
		{"timestamps stay on", "tcp_timestamps", "", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, topic := range everything() {
				if tt.in != "" && tt.in != topic.Name {
					continue
				}
				for _, sentence := range sentences(topic) {
					if strings.Contains(sentence, tt.word) && (tt.allowed == nil || !tt.allowed.MatchString(sentence)) {
						t.Errorf("%s: %q", topic.Name, sentence)
					}
				}
			}
		})
	}
}

// Each of these facts must be in its topic.
func TestFacts_Required(t *testing.T) {
	tests := []struct {
		name, topic, want string
	}{
		{"TIME_WAIT always lasts a minute", "TIME_WAIT", "always lasts 60 seconds"},
		{"TIME_WAIT costs a server no ports", "TIME_WAIT", "On the server's side they cost some memory and no ports"},
		{"CLOSE_WAIT is the application's doing", "CLOSE_WAIT", "an application does not close"},
		{"SYN_RECV comes after the handshake", "SYN_RECV", "when the final ACK has arrived"},
		{"pending requests give no record", "NEW_SYN_RECV", "gives no record"},
		{"a bound socket gives no record", "BOUND_INACTIVE", "gives no record"},
		{"an orphan in FIN_WAIT2 lasts tcp_fin_timeout", "FIN_WAIT2", "it is an orphan and lasts net.ipv4.tcp_fin_timeout"},
		{"a connect without a free port is distinguished", "SYN_SENT", "the ephemeral ports for that destination are used up"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			topic, _ := Lookup(tt.topic)
			if !strings.Contains(strings.ToLower(strings.Join(paragraphs(topic), " ")), strings.ToLower(tt.want)) {
				t.Errorf("%s lacks %q", tt.topic, tt.want)
			}
		})
	}
}

// kernelTransitions are those that the kernel makes, with TIME_WAIT as tcpshift shows it.
var kernelTransitions = strings.Fields(`
	CLOSE->LISTEN CLOSE->SYN_SENT LISTEN->CLOSE LISTEN->SYN_RECV
	SYN_SENT->CLOSE SYN_SENT->ESTABLISHED SYN_SENT->SYN_RECV
	SYN_RECV->ESTABLISHED SYN_RECV->CLOSE
	ESTABLISHED->FIN_WAIT1 ESTABLISHED->CLOSE_WAIT ESTABLISHED->CLOSE
	FIN_WAIT1->FIN_WAIT2 FIN_WAIT1->CLOSING FIN_WAIT1->CLOSE FIN_WAIT1->FIN_WAIT1
	FIN_WAIT2->TIME_WAIT FIN_WAIT2->CLOSE FIN_WAIT2->FIN_WAIT2
	CLOSING->TIME_WAIT CLOSING->CLOSE
	CLOSE_WAIT->LAST_ACK CLOSE_WAIT->CLOSE LAST_ACK->CLOSE`)

var transitionForm = regexp.MustCompile(`^([A-Z_0-9]+) -> ([A-Z_0-9]+): .+[^.]$`)

// Topics explain every transition that the kernel makes, and no other.
func TestFacts_Transitions(t *testing.T) {
	unexplained := slices.Clone(kernelTransitions)
	for _, topic := range States() {
		for _, line := range topic.Transitions {
			m := transitionForm.FindStringSubmatch(line)
			if m == nil {
				t.Errorf("%s: %q is not of the form A -> B: why", topic.Name, line)
				continue
			}
			pair := m[1] + "->" + m[2]
			if !slices.Contains(kernelTransitions, pair) {
				t.Errorf("%s: the kernel does not make %s", topic.Name, pair)
			}
			unexplained = slices.DeleteFunc(unexplained, func(s string) bool { return s == pair })
			seen := topic.Name != "NEW_SYN_RECV" && topic.Name != "BOUND_INACTIVE"
			if seen && m[1] != topic.Name && m[2] != topic.Name {
				t.Errorf("%s: %q is about other states", topic.Name, line)
			}
		}
	}
	if len(unexplained) > 0 {
		t.Errorf("no topic explains %v", unexplained)
	}
}

// A misspelled name such as FIN_WAIT_1 is a name that no record has.
func TestFacts_StateNames(t *testing.T) {
	known := append(names(), "SO_KEEPALIVE", "SO_LINGER", "SO_REUSEPORT", "TCP_DEFER_ACCEPT",
		"TCP_LINGER2", "TCP_USER_TIMEOUT", "IP_BIND_ADDRESS_NO_PORT")
	capitals := regexp.MustCompile(`\b[A-Z]+(_[A-Z0-9]+)+\b`)
	for _, topic := range everything() {
		for _, text := range append(paragraphs(topic), topic.Transitions...) {
			for _, word := range capitals.FindAllString(text, -1) {
				if !slices.Contains(known, word) {
					t.Errorf("%s: unknown word %s", topic.Name, word)
				}
			}
		}
	}
}

// Commands, sysctls and counters in the texts exist.
func TestFacts_NamesExist(t *testing.T) {
	tests := []struct {
		name    string
		pattern *regexp.Regexp
		known   []string
	}{
		{"ss knows the states it is asked for", regexp.MustCompile(`\bss -\w+ state ([\w-]+)`),
			strings.Fields("established syn-sent syn-recv fin-wait-1 fin-wait-2 time-wait close-wait last-ack closing")},
		{"the kernel has the sysctls", regexp.MustCompile(`\bnet\.\w+\.\w+`), strings.Fields(`
			net.core.somaxconn net.ipv4.ip_local_port_range net.ipv4.tcp_fin_timeout net.ipv4.tcp_keepalive_time
			net.ipv4.tcp_max_orphans net.ipv4.tcp_max_syn_backlog net.ipv4.tcp_max_tw_buckets net.ipv4.tcp_orphan_retries
			net.ipv4.ip_local_reserved_ports net.ipv4.tcp_retries2 net.ipv4.tcp_syn_retries net.ipv4.tcp_synack_retries net.ipv4.tcp_syncookies net.ipv4.tcp_tw_reuse`)},
		{"nstat has the counters", regexp.MustCompile(`\bTcpExt\w+`), strings.Fields(`
			TcpExtListenDrops TcpExtListenOverflows TcpExtSyncookiesSent TcpExtTCPSynRetrans TcpExtTCPTimeWaitOverflow`)},
		{"tcpshift can explain each word that a text refers to", regexp.MustCompile(`tcpshift explain (\w+)`), append(names(), alertNames()...)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			found := false
			for _, topic := range everything() {
				for _, m := range tt.pattern.FindAllStringSubmatch(strings.Join(paragraphs(topic), " "), -1) {
					found = true
					if word := m[len(m)-1]; !slices.Contains(tt.known, word) {
						t.Errorf("%s: %q is unknown", topic.Name, word)
					}
				}
			}
			if !found {
				t.Error("the pattern matches nothing, so the test checks nothing")
			}
		})
	}
}

func alertNames() (kinds []string) {
	for _, topic := range Alerts() {
		kinds = append(kinds, topic.Name)
	}
	return kinds
}

// Each kind of alert has a topic, and its transitions are ones that the kernel makes.
func TestAlerts_AllKinds(t *testing.T) {
	if got, want := alertNames(), detect.Kinds(); !slices.Equal(got, want) {
		t.Errorf("topics are %v, kinds of alert are %v", got, want)
	}
	for _, topic := range Alerts() {
		for _, line := range topic.Transitions {
			m := transitionForm.FindStringSubmatch(line)
			if len(m) < 3 || !slices.Contains(kernelTransitions, m[1]+"->"+m[2]) {
				t.Errorf("%s: %q is no transition", topic.Name, line)
			}
		}
	}
}

func sentences(topic Topic) []string {
	var out []string
	for _, text := range paragraphs(topic) {
		start := 0
		for _, at := range sentenceEnd.FindAllStringIndex(text, -1) {
			out = append(out, text[start:at[1]])
			start = at[1]
		}
		out = append(out, text[start:])
	}
	return append(out, topic.Transitions...)
}
